//! A network that can die without a word: a network namespace for the daemon, with one cable to the servers.
//!
//! A forwarder cannot do this, because the kernel at its end goes on to acknowledge what arrives.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The namespace lives as long as the process that holds it, and the kernel removes the cable together with it, so
/// nothing stays behind after a test that was killed.
pub struct Network {
    holder: Child,
    cable: String,
    server: String,
}

impl Network {
    /// None where that is not possible: it takes root, Linux and the programs of iproute2 and util-linux.
    pub fn new() -> Option<Network> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo ready && exec sleep infinity"]);
        let mut holder = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut line = String::new();
        let answered = BufReader::new(holder.stdout.take()?).read_line(&mut line);
        // The network is made for one process, so that two runs on one machine keep apart.
        let pid = holder.id();
        let (third, fourth) = (pid / 64 % 256, pid % 64 * 4);
        let cable = format!("pyr{pid}");
        let server = format!("10.231.{third}.{}", fourth + 1);
        let client = format!("10.231.{third}.{}", fourth + 2);
        let network = Network { holder, cable, server };
        let cable = &network.cable;
        let made = answered.is_ok()
            && line == "ready\n"
            && ip(&format!("link add {cable} type veth peer name cable netns {pid}"))
            && ip(&format!("address add {}/30 dev {cable}", network.server))
            && ip(&format!("link set {cable} up"))
            && network.inside(&format!("ip address add {client}/30 dev cable"))
            && network.inside("ip link set cable up");
        made.then_some(network)
    }

    /// Where servers must listen to be reached through the cable.
    pub fn server_address(&self) -> &str {
        &self.server
    }

    /// What to put before a command so that it runs at the other end of the cable.
    pub fn command(&self) -> Vec<String> {
        ["nsenter", "--net", "--target"].into_iter().map(str::to_owned).chain([self.holder.id().to_string()]).collect()
    }

    /// Packets get lost, and neither end is told.
    #[track_caller]
    pub fn down(&self) {
        assert!(ip(&format!("link set {} down", self.cable)));
    }

    #[track_caller]
    pub fn up(&self) {
        assert!(ip(&format!("link set {} up", self.cable)));
    }

    fn inside(&self, command: &str) -> bool {
        let prefix = self.command();
        succeeds(Command::new(&prefix[0]).args(&prefix[1..]).args(command.split(' ')))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // It may have been unable to start; then there is nothing to end.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(command: &str) -> bool {
    succeeds(Command::new("ip").args(command.split(' ')))
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
