//! The processor time of a process, in nanoseconds: of all its threads, including those that have ended.

use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// The processor time that a process has used so far.
pub fn cpu_time(process: u32) -> std::io::Result<Duration> {
    let process = i32::try_from(process).map_err(std::io::Error::other)?;
    spent(clock_getcpuclockid(Pid::from_raw(process))?)
}

/// The processor time that this process has used so far.
pub fn own_cpu_time() -> std::io::Result<Duration> {
    spent(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn spent(clock: ClockId) -> std::io::Result<Duration> {
    Ok(clock.now()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_thread_that_has_ended_is_in_it() {
        let before = cpu_time(std::process::id()).unwrap();
        let worked = std::thread::spawn(|| {
            let started = own_cpu_time().unwrap();
            while own_cpu_time().unwrap() < started + Duration::from_millis(20) {}
        });
        worked.join().unwrap();
        assert!(cpu_time(std::process::id()).unwrap() >= before + Duration::from_millis(20));
    }
}
