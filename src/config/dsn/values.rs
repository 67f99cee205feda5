//! Values of a connection string that no server could be reached with.

use super::Dsn;

/// Keywords, and the words that each may have.
const WORDS: &[(&str, &[&str])] = &[
    ("sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("target_session_attrs", &["any", "read-write", "primary"]),
    ("channel_binding", &["disable", "prefer", "require"]),
    ("load_balance_hosts", &["disable", "random"]),
    ("sslnegotiation", &["postgres", "direct"]),
];

impl Dsn {
    /// What is wrong with the values, as far as that can be told without a server. It never has a value, which may be a password
    /// in the wrong place.
    pub fn faults(&self) -> Vec<String> {
        let given = |key: &str| self.get(key).filter(|value| !value.is_empty());
        let words = WORDS.iter().filter(|(key, words)| given(key).is_some_and(|value| !words.contains(&value)));
        let mut faults: Vec<String> =
            words.map(|(key, words)| format!("{key} must be one of {}", words.join(", "))).collect();
        let is_port = |port: &str| port.is_empty() || port.trim().parse::<u16>().is_ok_and(|port| port > 0);
        if given("port").is_some_and(|ports| !ports.split(',').all(is_port)) {
            faults.push("port must be 1 to 65535, or one for each host".to_string());
        }
        if given("connect_timeout").is_some_and(|seconds| seconds.trim().parse::<i64>().is_err()) {
            faults.push("connect_timeout must be a number of seconds".to_string());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_that_no_server_can_be_reached_with_is_named() {
        let faults = |text: &str| Dsn::parse(text).unwrap().faults().join("; ");
        assert_eq!(faults("host=a,b port=5432, sslmode=verify-full connect_timeout=-1 sslnegotiation=''"), "");
        assert_eq!(
            faults("sslmode=bogus port=abc connect_timeout=soon"),
            "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full; \
             port must be 1 to 65535, or one for each host; connect_timeout must be a number of seconds"
        );
        assert_eq!(faults("port=1,0"), "port must be 1 to 65535, or one for each host");
    }
}
