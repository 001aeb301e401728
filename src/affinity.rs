//! Where threads begin: each on a core of its own, where they have all of them.
//!
//! A scheduler that saves cores, as some virtual machines have, puts a new thread beside the one that made it, and leaves it there
//! as long as the two wait for each other. Threads that share a request do that.

/// The cores that this process may use, the one on which it is now first. None unless there are just so many: of more, the system
/// knows better which are free.
#[cfg(target_os = "linux")]
pub(crate) fn all_cores(threads: usize) -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu};
    if threads < 2 {
        return Vec::new();
    }
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    if allowed.count() as usize != threads {
        return Vec::new();
    }
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let here = sched_getcpu();
    let place = cores.iter().position(|core| *core == here).unwrap_or(0);
    cores.rotate_left(place);
    cores
}

/// Moves this thread to the core of its number, and lets it go again: where it goes on is for the system to say.
#[cfg(target_os = "linux")]
pub(crate) fn begin_on(cores: &[usize], number: usize) {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let use_only = |cores: &[usize]| {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        sched_setaffinity(None, &set)
    };
    if let Some(core) = cores.get(number)
        && use_only(&[*core]).is_ok()
    {
        // They were allowed a moment ago. Should they no longer be, the thread stays where it is.
        _ = use_only(cores);
    }
}

/// Other systems do not say where threads may run.
#[cfg(not(target_os = "linux"))]
pub(crate) fn all_cores(_threads: usize) -> Vec<usize> {
    Vec::new()
}

/// Leaves it to the system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn begin_on(_cores: &[usize], _number: usize) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu};

    use super::*;

    #[test]
    fn a_thread_may_go_where_it_could_before() {
        let allowed = || sched_getaffinity(None).expect("the cores of this process");
        let before = allowed();
        let count = before.count() as usize;
        assert!(all_cores(count + 1).is_empty() && all_cores(1).is_empty());
        let cores = all_cores(count);
        assert_eq!(cores.len(), if count == 1 { 0 } else { count });
        for number in 0..=count {
            begin_on(&cores, number);
            assert_eq!(allowed(), before);
        }
    }

    #[test]
    fn a_thread_begins_on_the_core_of_its_number() {
        let allowed = sched_getaffinity(None).expect("the cores of this process");
        for core in (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)) {
            // It is the only one on the list, so that the thread is not let go.
            begin_on(&[core], 0);
            assert_eq!(sched_getcpu(), core);
        }
    }
}
