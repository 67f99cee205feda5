//! `pyreplica completion` prints what makes a shell complete command lines, made from what the verbs declare.

use super::text;
use super::{REPLICATION, VERBS, help};
use crate::base::control::Control;
use crate::base::error::{ExitCode, Result};
use crate::process::output;
use crate::verbs::verb::{Call, Opt, PairSource, Value, Verb, Words};

pub const VERB: Verb =
    Verb { name: "completion", help: HELP, options: &[], words: Words::Topic(&["bash", "zsh", "fish"]), run };

const HELP: &str = "\
pyreplica completion prints what completes command lines in a shell

usage:
  pyreplica completion [bash | zsh | fish]

Without a name it prints that for bash. It completes verbs, options and their
values, config files and the names of scripts.

example:
  pyreplica completion bash > /usr/share/bash-completion/completions/pyreplica
  pyreplica completion zsh > /usr/share/zsh/vendor-completions/_pyreplica
  pyreplica completion fish > ~/.config/fish/completions/pyreplica.fish
";

fn run(call: &Call, _control: &Control) -> Result<ExitCode> {
    output::print(&match call.source {
        PairSource::Topic(Some("zsh")) => zsh(),
        PairSource::Topic(Some("fish")) => fish(),
        _ => bash(),
    })?;
    Ok(ExitCode::Success)
}

/// The verbs' names. `help` is none of them, and explains one.
fn names() -> Vec<&'static str> {
    VERBS.iter().map(|verb| verb.name).chain(["help"]).collect()
}

/// The words, not options, that can follow a verb; None if these are config files.
fn topics(verb: &Verb) -> Option<Vec<&'static str>> {
    match verb.words {
        Words::Topic(topics) => Some(topics.to_vec()),
        Words::Database => Some(Vec::new()),
        Words::Pairs | Words::ChangesAndPairs => None,
    }
}

fn bash() -> String {
    let mut cases = String::new();
    let mut values = String::new();
    let mut case = |name: &str, options: &[Opt], topics: Option<Vec<&str>>| {
        let options: Vec<&str> = options.iter().map(|option| option.name).chain(["--help"]).collect();
        let words = topics.map(|topics| format!(" is_file= topics='{}'", topics.join(" "))).unwrap_or_default();
        cases += &format!("        {name}) options='{}'{words} ;;\n", options.join(" "));
    };
    VERBS.iter().for_each(|verb| case(verb.name, verb.options, topics(verb)));
    case("help", &[], Some(names()));
    let all = VERBS.iter().map(|verb| (verb.name, verb.options)).chain([("", &REPLICATION[..])]);
    for (verb, option) in all.flat_map(|(verb, options)| options.iter().map(move |option| (verb, option))) {
        let found = match &option.value {
            Value::None | Value::Optional(_) => continue,
            Value::Path(_) => "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\"))".to_string(),
            Value::OneOf(words) => format!("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", words.join(" ")),
            // Nobody can guess it.
            Value::Text(_) | Value::Number(_) => String::new(),
        };
        values += &format!("        '{verb} {}') {found}; return ;;\n", option.name).replace(") ; return", ") return");
    }
    let replication: Vec<&str> = REPLICATION.iter().map(|option| option.name).chain(["--help", "--version"]).collect();
    format!(
        "# pyreplica's completion for bash, made by pyreplica completion bash\n\
         _pyreplica() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} verb=${{COMP_WORDS[1]}}\n    \
         local options topics='' is_file=yes\n    COMPREPLY=()\n    \
         [ \"$COMP_CWORD\" -gt 1 ] || verb=\n    case $verb in\n{cases}        \
         *) verb='' options='{}' ;;\n    esac\n    case \"$verb $before\" in\n{values}    esac\n    \
         [ \"$COMP_CWORD\" -gt 1 ] || topics='{}'\n    \
         case $word in\n        -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")); return ;;\n    esac\n    \
         [ -z \"$topics\" ] || COMPREPLY=($(compgen -W \"$topics\" -- \"$word\"))\n    \
         [ -z \"$is_file\" ] || {{\n        compopt -o filenames\n        \
         COMPREPLY+=($(compgen -f -X '!*.conf' -- \"$word\") $(compgen -d -- \"$word\"))\n    }}\n}}\n\
         complete -F _pyreplica pyreplica\n",
        replication.join(" "),
        names().join(" "),
    )
}

fn zsh() -> String {
    let quoted = |text: &str| text.replace('\'', "'\\''");
    let spec = |option: &Opt, help: &str| {
        let text = text::option(help, option.name).replace(['[', ']'], "").replace(':', "\\:");
        let value = match &option.value {
            Value::None => String::new(),
            Value::Path(what) => format!(":{what}:_files"),
            Value::OneOf(words) => format!(":value:({})", words.join(" ")),
            Value::Text(what) => format!(":{what}: "),
            Value::Number(range) | Value::Optional(range) => format!(":{} to {}: ", range.start(), range.end()),
        };
        let sign = if value.is_empty() || matches!(option.value, Value::Optional(_)) { "" } else { "=" };
        let value = if matches!(option.value, Value::Optional(_)) { String::new() } else { value };
        format!(" '*{}{sign}[{}]{value}'", option.name, quoted(&text))
    };
    let files = " '*:config file:_files -g \"*.conf\"'".to_string();
    let mut cases = String::new();
    let mut verbs = String::new();
    for verb in VERBS {
        verbs += &format!("        '{}:{}'\n", verb.name, quoted(text::purpose(verb.help)));
        let options: String = verb.options.iter().map(|option| spec(option, verb.help)).collect();
        let words = match topics(verb) {
            None => files.clone(),
            Some(topics) if topics.is_empty() => String::new(),
            Some(topics) => format!(" '2:name:({})'", topics.join(" ")),
        };
        cases += &format!("        {}) _arguments '--help[explain it]' '1:verb: '{options}{words} ;;\n", verb.name);
    }
    let replication: String = REPLICATION.iter().map(|option| spec(option, help::MAIN)).collect();
    format!(
        "#compdef pyreplica\n# made by pyreplica completion zsh\n_pyreplica() {{\n    local -a verbs\n    verbs=(\n{verbs}        \
         'help:explains a verb'\n    )\n    if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then\n        \
         _describe verb verbs\n        _files -g '*.conf'\n        return\n    fi\n    case $words[2] in\n{cases}        \
         help) _arguments '1:verb: ' '2:name:({})' ;;\n        \
         *) _arguments '--help[explain it]' '--version[print the version]'{replication}{files} ;;\n    esac\n}}\n_pyreplica \"$@\"\n",
        names().join(" ")
    )
}

fn fish() -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let option = |condition: &str, option: &Opt, help: &str| {
        let value = match &option.value {
            Value::None | Value::Optional(_) => String::new(),
            Value::Path(_) => " -r -F".to_string(),
            Value::OneOf(words) => format!(" -x -a '{}'", words.join(" ")),
            Value::Text(_) | Value::Number(_) => " -x".to_string(),
        };
        let name = option.name.trim_start_matches('-');
        format!(
            "complete -c pyreplica -n '{condition}' -l {name}{value} -d '{}'\n",
            quoted(&text::option(help, option.name))
        )
    };
    let mut text = "# pyreplica's completion for fish, made by pyreplica completion fish\n\
         complete -c pyreplica -f -a '(__fish_complete_suffix .conf)'\n\
         complete -c pyreplica -l help -s h -d 'explain it'\n\
         complete -c pyreplica -n __fish_use_subcommand -l version -s V -d 'print the version'\n"
        .to_string();
    text += &REPLICATION.iter().map(|o| option("__fish_use_subcommand", o, help::MAIN)).collect::<String>();
    for verb in VERBS {
        let purpose = quoted(text::purpose(verb.help));
        text += &format!("complete -c pyreplica -n __fish_use_subcommand -a {} -d '{purpose}'\n", verb.name);
        let condition = format!("__fish_seen_subcommand_from {}", verb.name);
        text += &verb.options.iter().map(|o| option(&condition, o, verb.help)).collect::<String>();
        if let Some(topics) = topics(verb).filter(|topics| !topics.is_empty()) {
            text += &format!("complete -c pyreplica -n '{condition}' -a '{}'\n", topics.join(" "));
        }
    }
    text + &format!(
        "complete -c pyreplica -n __fish_use_subcommand -a help -d 'explains a verb'\n\
         complete -c pyreplica -n '__fish_seen_subcommand_from help' -a '{}'\n",
        names().join(" ")
    )
}
