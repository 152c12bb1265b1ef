//! The process itself, as the system describes it. Where the system does not say it in `/proc`, nothing is shown.

use std::fs;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Looks when somebody asks.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Some(found) = Facts::look() else { return Ok(()) };
        let seconds = ConstCounter::new(found.cpu_seconds);
        let descriptor =
            encoder.encode_descriptor("process_cpu_seconds", "Processor time used", None, seconds.metric_type())?;
        seconds.encode(descriptor)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use", found.resident_bytes),
            ("process_virtual_memory_bytes", "Address space in use", found.virtual_bytes),
            ("process_open_fds", "Open file descriptors", found.open_fds),
            ("process_max_fds", "File descriptors that may be open", found.max_fds),
            ("process_threads", "Threads", found.threads),
        ] {
            let gauge = ConstGauge::new(value);
            let descriptor = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(descriptor)?;
        }
        let started = ConstGauge::new(found.started_at);
        let descriptor = encoder.encode_descriptor(
            "process_start_time_seconds",
            "When it started, in seconds since 1970",
            None,
            started.metric_type(),
        )?;
        started.encode(descriptor)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Facts {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    open_fds: i64,
    max_fds: i64,
    threads: i64,
    started_at: f64,
}

/// Ticks in a second; the interface of `/proc` has had this value on every architecture for as long as Rust runs there.
const TICKS_PER_SECOND: f64 = 100.0;

impl Facts {
    fn look() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).ok();
        let mut facts = Self::parse(
            &read("/proc/self/stat")?,
            &read("/proc/self/status")?,
            &read("/proc/self/limits")?,
            &read("/proc/stat")?,
        )?;
        // One of them is the folder that is being read.
        let descriptors = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        facts.open_fds = i64::try_from(descriptors).ok()?;
        Some(facts)
    }

    /// From the texts of the process's `stat`, `status` and `limits`, and of the machine's `stat`.
    fn parse(stat: &str, status: &str, limits: &str, machine: &str) -> Option<Self> {
        // The name in parentheses may hold anything; the numbers are counted from behind it.
        let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| numbers.get(index)?.parse::<f64>().ok();
        let kib = |name: &str| Some(number_of(status, name)? * 1024);
        let boot: f64 = machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        let max_fds = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        Some(Self {
            cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            resident_bytes: kib("VmRSS:")?,
            virtual_bytes: kib("VmSize:")?,
            open_fds: 0,
            max_fds: max_fds.split_whitespace().next()?.parse().unwrap_or(i64::MAX),
            threads: number_of(status, "Threads:")?,
            started_at: boot + ticks(19)? / TICKS_PER_SECOND,
        })
    }
}

fn number_of(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 5 0 1000 11 22 33";
        let status = "Name:\ta) b\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t5\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        let found = Facts::parse(stat, status, limits, "cpu 1\nbtime 1700000000\n").unwrap();
        let expected = Facts {
            cpu_seconds: 3.0,
            resident_bytes: 1024 * 1024,
            virtual_bytes: 2048 * 1024,
            open_fds: 0,
            max_fds: 1024,
            threads: 5,
            started_at: 1_700_000_010.0,
        };
        assert_eq!(found, expected);
        assert!(Facts::parse("", status, limits, "").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_described() {
        let found = Facts::look().unwrap();
        assert!(found.threads >= 1 && found.open_fds >= 3 && found.resident_bytes > 0, "{found:?}");
    }
}
