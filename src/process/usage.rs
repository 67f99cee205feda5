//! What this process uses of the machine. Linux tells it in `/proc`; elsewhere nothing is known.

use std::fs;

/// The kernel counts time in hundredths of a second for programs, whatever its own clock does.
const TICKS: f64 = 100.0;

#[derive(Debug)]
pub struct Usage {
    pub cpu_seconds: f64,
    pub resident_bytes: f64,
    pub virtual_bytes: f64,
    pub open_files: f64,
    pub most_files: f64,
    /// In seconds since 1970.
    pub started: f64,
}

/// None where the system does not tell.
pub fn usage() -> Option<Usage> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name before it may hold anything. The numbers below are those of proc(5), which counts from 1.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let boot = number_behind(&fs::read_to_string("/proc/stat").ok()?, "btime ")?;
    Some(Usage {
        cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS,
        resident_bytes: number_behind(&status, "VmRSS:")? * 1024.0,
        virtual_bytes: number_behind(&status, "VmSize:")? * 1024.0,
        // The one that reads the directory is not counted.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as f64 - 1.0).max(0.0),
        // Without a limit this is a word.
        most_files: number_behind(&limits, "Max open files").unwrap_or(f64::INFINITY),
        started: boot + ticks(22)? / TICKS,
    })
}

/// The number in the line that begins so.
fn number_behind(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn linux_tells_what_this_process_uses() {
        let usage = usage().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(usage.started <= now + 1.0 && usage.started > now - 86_400.0, "{usage:?}");
        assert!(usage.resident_bytes > 100_000.0 && usage.virtual_bytes >= usage.resident_bytes, "{usage:?}");
        assert!(usage.open_files >= 1.0 && usage.most_files >= usage.open_files && usage.cpu_seconds >= 0.0);
    }
}
