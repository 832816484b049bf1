//! Memory and file descriptors of processes over time: what leaks grows from the first third of a run to the last.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use rustix::process::Pid;

const PAGE: u64 = 4096;
/// By how much the median may grow, besides the share: what is noise of heaps and caches.
const MEMORY: u64 = 48 << 20;
const FILES: u64 = 24;

/// What processes used, by what they are.
#[derive(Default)]
pub struct Usage(BTreeMap<String, Vec<Used>>);

#[derive(Clone, Copy)]
struct Used {
    memory: u64,
    files: u64,
}

impl Usage {
    /// Looks at a process now. One that has ended is left out.
    pub fn look(&mut self, name: &str, pid: Pid) {
        if let Some(used) = used(pid) {
            self.0.entry(name.to_owned()).or_default().push(used);
        }
    }

    /// Compares the medians of the last third with those of the first.
    ///
    /// # Errors
    /// When something grew by more than a quarter and a margin.
    pub fn is_flat(&self) -> Result<()> {
        for (name, all) in &self.0 {
            let third = all.len().div_ceil(3);
            let (first, last) = (&all[..third], &all[all.len() - third..]);
            for (what, of, margin) in [
                (
                    "bytes of memory",
                    (|used: &Used| used.memory) as fn(&Used) -> u64,
                    MEMORY,
                ),
                ("file descriptors", |used: &Used| used.files, FILES),
            ] {
                let (before, after) = (median(first, of), median(last, of));
                ensure!(
                    after <= before + before / 4 + margin,
                    "{name} went from {before} to {after} {what}"
                );
            }
        }
        Ok(())
    }

    /// The medians of the first and the last third, for people.
    pub fn told(&self) -> String {
        let told = self.0.iter().map(|(name, all)| {
            let third = all.len().div_ceil(3);
            let (first, last) = (&all[..third], &all[all.len() - third..]);
            let memory = [first, last].map(|some| median(some, |used| used.memory) >> 20);
            let files = [first, last].map(|some| median(some, |used| used.files));
            format!(
                "{name}: {memory:?} MiB, {files:?} descriptors, {} looks",
                all.len()
            )
        });
        told.collect::<Vec<_>>().join("\n")
    }
}

fn median(some: &[Used], of: impl Fn(&Used) -> u64) -> u64 {
    let mut values: Vec<u64> = some.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Resident memory in bytes and open descriptors.
fn used(pid: Pid) -> Option<Used> {
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let pages = std::fs::read_to_string(format!("{process}/statm")).ok()?;
    let memory = pages.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE;
    let files = std::fs::read_dir(format!("{process}/fd")).ok()?.count() as u64;
    Some(Used { memory, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_found() {
        let usage = |memory: fn(u64) -> u64, files: fn(u64) -> u64| {
            let used = (0..90).map(|look| Used {
                memory: memory(look),
                files: files(look),
            });
            Usage([("role".to_owned(), used.collect())].into())
        };
        let steady = |look| 100 + look % 7;
        let mib = |look: u64| (100 + look % 7) << 20;
        assert!(usage(mib, steady).is_flat().is_ok());
        assert!(
            usage(|look| (100 + 3 * look) << 20, steady)
                .is_flat()
                .is_err()
        );
        assert!(usage(mib, |look| 100 + 3 * look).is_flat().is_err());
        assert!(Usage::default().is_flat().is_ok());
    }
}
