//! Names of tables in the settings, as SQL has them: in lower case unless they are quoted, in `public` unless a schema stands in
//! front.

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// An identifier, in lower case unless it was quoted, as in SQL. The flag says whether it was quoted.
    Name(String, bool),
    /// One of `.,()`.
    Mark(char),
}

/// Schema and name of a table, from its name in the log.
pub fn parts(relation: &str) -> Option<(String, String)> {
    match words(relation).ok()?.as_slice() {
        [Word::Name(schema, _), Word::Mark('.'), Word::Name(name, _)] => Some((schema.clone(), name.clone())),
        _ => None,
    }
}

pub fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_whitespace() => {}
            '.' | ',' | '(' | ')' => words.push(Word::Mark(c)),
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('"') if rest.next_if_eq(&'"').is_some() => name.push('"'),
                        Some('"') => break,
                        Some(c) => name.push(c),
                        None => return Err("a name in double quotes has no end".to_string()),
                    }
                }
                words.push(Word::Name(name, true));
            }
            c => {
                let mut name = String::from(c.to_ascii_lowercase());
                while let Some(c) = rest.next_if(|c| !c.is_whitespace() && !".,()\"".contains(*c)) {
                    name.push(c.to_ascii_lowercase());
                }
                words.push(Word::Name(name, false));
            }
        }
    }
    Ok(words)
}
