//! The list of what is in a dump, as `pg_restore --list` writes it and `--use-list` reads it.

use std::collections::HashSet;

/// The lines of a list that are not about pyreplica's own objects, and how many. A line: `215; 1259 16385 TABLE public t joe`,
/// and if it is about a comment or about privileges: `3470; 0 0 COMMENT public TABLE t joe`.
pub(super) fn without_own(list: &str, own: &HashSet<(u32, u32)>) -> (String, usize) {
    let lines = list.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let is_own = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |place: usize| words.get(place).and_then(|word: &&str| word.parse::<u32>().ok());
        number(1).zip(number(2)).is_some_and(|object| own.contains(&object))
    };
    let (own, others): (Vec<&str>, Vec<&str>) = lines.partition(is_own);
    // The name without the arguments of a function, or the column of a table.
    fn bare(name: &str) -> &str {
        name.split(['(', '.']).next().unwrap_or(name)
    }
    // The line of a trigger or a constraint names its table there.
    let named = |line: &&str| {
        let mut words = line.split(' ').skip(3);
        let kind = words.next()?;
        let is_named = matches!(kind, "TABLE" | "VIEW" | "SEQUENCE" | "FUNCTION" | "EXTENSION");
        is_named.then(|| Some(bare(words.nth(1)?).to_string()))?
    };
    let names: HashSet<String> = own.iter().filter_map(named).collect();
    let is_others = |line: &&str| {
        // SEQUENCE OWNED BY is not an object and has no number, so it is recognized by its name.
        let is_owned_by = line.contains(" SEQUENCE OWNED BY public ")
            && line.split(' ').any(|word| word.starts_with("replica_log_") || word.starts_with("py_log_"));
        let words: Vec<&str> = line.split(' ').skip(3).collect();
        let is_about_own =
            matches!(words[..], ["COMMENT" | "ACL", "public" | "-", _, name, ..] if names.contains(bare(name)));
        !is_owned_by && !is_about_own
    };
    let kept: Vec<&str> = others.into_iter().filter(is_others).collect();
    (kept.iter().map(|line| format!("{line}\n")).collect(), kept.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pyreplicas_own_is_left_out_of_a_schema() {
        let list = "; comment\n;\n215; 1259 16385 TABLE public replica_log joe\n216; 1259 16390 TABLE public t joe\n\
                    3461; 0 0 SEQUENCE OWNED BY public replica_log_id_seq joe\n\
                    3462; 0 0 SEQUENCE OWNED BY public t_id_seq joe\n3470; 2620 16400 TRIGGER public t !replica_tg joe\n\
                    2; 3079 16500 EXTENSION - plpython3u \n3471; 0 0 COMMENT - EXTENSION plpython3u \n\
                    3472; 0 0 COMMENT public TABLE replica_log joe\n3473; 0 0 COMMENT public TABLE t joe\n\
                    3474; 0 0 ACL public TABLE replica_log joe\n3475; 0 0 ACL public COLUMN replica_log.sql joe\n\
                    3476; 0 0 ACL public TABLE t joe\n";
        let own = HashSet::from([(1259, 16385), (2620, 16400), (3079, 16500)]);
        let (kept, count) = without_own(list, &own);
        let expected = "216; 1259 16390 TABLE public t joe\n3462; 0 0 SEQUENCE OWNED BY public t_id_seq joe\n\
                        3473; 0 0 COMMENT public TABLE t joe\n3476; 0 0 ACL public TABLE t joe\n";
        assert_eq!((kept.as_str(), count), (expected, 4));
    }
}
