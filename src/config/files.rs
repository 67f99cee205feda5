//! Finds the config files on disk and reads them.

use crate::base::error::{Error, Kind, Result};
use crate::config::settings::Config;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The result of reading a list of files and directories. A file with an error does not keep the others from running.
#[derive(Debug, Default)]
pub struct LoadedConfigs {
    pub configs: Vec<Config>,
    /// The file of each of the configs. Empty for a pair from the command line.
    pub files: Vec<PathBuf>,
    pub errors: Vec<Error>,
    /// For each of the errors, the file or directory that it is about.
    pub bad: Vec<PathBuf>,
    /// What the operator should know of the files, for the log.
    pub warnings: Vec<String>,
}

/// Reads each file, and each `*.conf` of each directory, sorted by name.
pub fn load(paths: &[PathBuf]) -> LoadedConfigs {
    let mut loaded = LoadedConfigs::default();
    let mut sources: Vec<PathBuf> = Vec::new();
    for path in paths {
        match expand(path) {
            Ok(files) => sources.extend(files),
            Err(error) => loaded.refuse(path.clone(), error),
        }
    }
    for path in sources {
        match read(&path).and_then(|config| refuse_duplicate(config, &path, &loaded.configs, &loaded.files)) {
            Ok(config) => {
                loaded.warnings.extend(shows_password(&config, &path));
                loaded.warnings.extend(has_others_name(&config, &path, &loaded));
                loaded.configs.push(config);
                loaded.files.push(path);
            }
            Err(error) => loaded.refuse(path, error),
        }
    }
    loaded
}

impl LoadedConfigs {
    fn refuse(&mut self, path: PathBuf, error: Error) {
        self.bad.push(path);
        self.errors.push(error);
    }
}

fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect() };
    let mut files = list().map_err(|e| unreadable(path, e))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    if files.is_empty() {
        return Err(unreadable(path, "no *.conf file in this directory")
            .with_hint("copy sample.conf there under a name that ends in .conf, and fill it in"));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Config> {
    let text = fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound if path.as_os_str().is_empty() => {
            Error::new(Kind::Config, None, "use the config file", "its name is empty")
                .with_hint("is a variable of the shell empty? Name a config file, or leave the word out")
        }
        io::ErrorKind::NotFound => unreadable(path, "there is no such file or directory")
            .with_hint("name a config file, a directory of them, or two connection strings: see pyreplica --help"),
        io::ErrorKind::InvalidData => {
            unreadable(path, "it is not in UTF-8").with_hint("convert it: iconv -f LATIN1 -t UTF-8, for example")
        }
        _ => unreadable(path, e),
    })?;
    Config::parse(&text)
        .map_err(|e| Error::new(Kind::Config, None, "use the config file", format!("{}:{e}", path.display())))
}

/// Each thing that is wrong in a file, with file, line and key. Empty if it can be used by itself, or cannot be read.
pub fn faults(path: &Path) -> Vec<String> {
    let parsed = fs::read_to_string(path).map(|text| Config::parse(&text));
    let Ok(Err(errors)) = parsed else { return Vec::new() };
    errors.iter().map(|error| format!("{}:{error}", path.display())).collect()
}

/// Refuses a second file for the same pair: its thread would only wait for the thread of the first.
fn refuse_duplicate(config: Config, path: &Path, others: &[Config], files: &[PathBuf]) -> Result<Config> {
    let same = |other: &Config| {
        (&other.name, &other.master, &other.slave, &other.slave_field)
            == (&config.name, &config.master, &config.slave, &config.slave_field)
    };
    match others.iter().position(same) {
        Some(index) => Err(unreadable(path, format!("replicates the same pair as {}", files[index].display()))),
        None => Ok(config),
    }
}

/// A warning, if another pair has the same name and field: nobody could tell the two apart.
fn has_others_name(config: &Config, path: &Path, loaded: &LoadedConfigs) -> Option<String> {
    let same = |other: &Config| (&other.name, &other.slave_field) == (&config.name, &config.slave_field);
    let other = loaded.configs.iter().position(same).and_then(|index| loaded.files.get(index))?;
    Some(format!(
        "{}: the pair has the NAME of the one in {}: log, status and metrics cannot tell them apart. \
         hint: give it another NAME",
        path.display(),
        other.display()
    ))
}

/// A warning, if the file holds a password and others may read or change it.
fn shows_password(config: &Config, path: &Path) -> Option<String> {
    let has_password = [&config.master, &config.slave].iter().any(|dsn| **dsn != dsn.without_password())
        || config.smtp.as_ref().is_some_and(|smtp| smtp.login.is_some());
    (has_password && shows_secrets(&fs::metadata(path).ok()?)).then(|| {
        format!(
            "config file {0} holds a password and has group or world access; permissions should be u=rw (0600) or less, or \
             u=rw,g=r (0640) or less if it belongs to root. hint: chmod 600 {0}, and let it belong to the account that \
             pyreplica runs as; or chmod 640, and let it belong to root and to that account's group",
            path.display()
        )
    })
}

/// Whether others than the owner may read or write a file.
#[cfg(unix)]
pub fn is_open_to_others(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o077 != 0
}

#[cfg(windows)]
pub fn is_open_to_others(_meta: &fs::Metadata) -> bool {
    false
}

/// libpq's rule for files with a key: a group may read one that belongs to root, and nobody but the owner may read any other.
#[cfg(unix)]
pub fn shows_secrets(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    meta.mode() & forbidden != 0
}

#[cfg(windows)]
pub fn shows_secrets(_meta: &fs::Metadata) -> bool {
    false
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Config, None, "use the config file", format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for one test, which is deleted at the end of the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pyreplica-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn load(&self) -> LoadedConfigs {
            load(std::slice::from_ref(&self.0))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn pair(name: &str) -> String {
        format!("[MAIN]\nNAME={name}\nDSN0=host=x\nDSN1=host=y\n")
    }

    #[test]
    fn a_directory_gives_its_conf_files_in_order_and_a_bad_one_is_skipped_with_file_line_and_key() {
        let dir = Scratch::new("order");
        dir.write("b.conf", &pair("b"));
        dir.write("a.conf", &pair("a"));
        dir.write("c.conf", &format!("{}DEBUG_LEVEL=9\n", pair("c")));
        dir.write("a.conf.bak", "nonsense");
        let loaded = dir.load();
        let names: Vec<&str> = loaded.configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(loaded.errors.len(), 1);
        let error = loaded.errors[0].to_string();
        assert!(error.ends_with("/c.conf:5: DEBUG_LEVEL: must be 0 to 3"), "{error}");
    }

    #[test]
    fn a_pair_in_two_files_runs_once() {
        let dir = Scratch::new("duplicate");
        dir.write("a.conf", &pair("a"));
        dir.write("b.conf", &pair("a"));
        let loaded = dir.load();
        assert_eq!(loaded.configs.len(), 1);
        assert!(loaded.errors[0].to_string().contains("b.conf: replicates the same pair as"));
        // Another pair runs, but should have another name.
        dir.write("b.conf", &pair("a").replace("host=y", "host=z"));
        let loaded = dir.load();
        assert_eq!((loaded.configs.len(), loaded.errors.len(), loaded.warnings.len()), (2, 0, 1));
        assert!(loaded.warnings[0].contains("b.conf: the pair has the NAME of the one in"), "{:?}", loaded.warnings);
    }

    #[test]
    fn an_empty_directory_and_a_missing_file_are_errors() {
        let dir = Scratch::new("empty");
        assert!(dir.load().errors[0].to_string().contains("no *.conf file"));
        assert_eq!(load(&[dir.0.join("none.conf")]).errors.len(), 1);
    }
}
