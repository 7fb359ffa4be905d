//! A pending task, as a scan found it.

use std::fmt;

use serde::Serialize;

use crate::function_ref::CodePlace;

/// A task that has not reached the target state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingTask {
    /// Thread id; 0 for an idle task.
    pub tid: u32,
    /// Process id: the same for all threads of a process.
    pub tgid: u32,
    /// The thread's name: arbitrary bytes (see [`super::printable`]).
    pub comm: Vec<u8>,
    /// Whether it is a kernel thread.
    pub kthread: bool,
    /// The CPU of an idle task (swapper); `None` for the others.
    pub idle_cpu: Option<u32>,
    /// Whether it was on a CPU; `None` if unknown.
    pub on_cpu: Option<bool>,
    /// What the task was doing when it was read.
    pub state: TaskState,
    /// `task_struct.patch_state`: 0 unpatched, 1 patched.
    pub patch_state: i32,
    /// Id of its cgroup in the unified hierarchy.
    pub cgroup_id: Option<u64>,
    /// Start time in nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Return addresses, the innermost first; empty if none could be read.
    pub stack: Vec<Frame>,
}

/// A task's state by the letter that ps(1) shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum TaskState {
    /// R: running or runnable.
    Running,
    /// S: asleep; a signal wakes it.
    Sleeping,
    /// D: asleep; no signal wakes it.
    Uninterruptible,
    /// T: stopped by a signal.
    Stopped,
    /// t: stopped by a debugger.
    Traced,
    /// X: dead, about to disappear.
    Dead,
    /// Z: dead, not yet reaped by its parent.
    Zombie,
    /// P: a parked kernel thread.
    Parked,
    /// I: an idle kernel thread; no signal wakes it.
    Idle,
    /// An unknown letter, or none was read.
    Unknown,
}

impl TaskState {
    /// Decodes `task_struct.__state` (`state` before 5.14) as `__task_state_index` does
    /// (include/linux/sched.h, 5.10 to 7.2), except for a dead task, for which the kernel also
    /// looks at `exit_state`. `u32::MAX` means unknown.
    #[must_use]
    pub const fn from_bits(state: u32) -> Self {
        const INTERRUPTIBLE: u32 = 0x1;
        const UNINTERRUPTIBLE: u32 = 0x2;
        const STOPPED: u32 = 0x4;
        const TRACED: u32 = 0x8;
        const EXIT_DEAD: u32 = 0x10;
        const EXIT_ZOMBIE: u32 = 0x20;
        const PARKED: u32 = 0x40;
        const DEAD: u32 = 0x80;
        const NOLOAD: u32 = 0x400;
        const RTLOCK_WAIT: u32 = 0x1000;
        const FROZEN: u32 = 0x8000;
        const IDLE: u32 = UNINTERRUPTIBLE | NOLOAD;

        if state == u32::MAX {
            Self::Unknown
        } else if state & IDLE == IDLE {
            Self::Idle
        } else if state & (RTLOCK_WAIT | FROZEN) != 0 {
            Self::Uninterruptible
        } else if state & PARKED != 0 {
            Self::Parked
        } else if state & EXIT_ZOMBIE != 0 {
            Self::Zombie
        } else if state & (EXIT_DEAD | DEAD) != 0 {
            Self::Dead
        } else if state & TRACED != 0 {
            Self::Traced
        } else if state & STOPPED != 0 {
            Self::Stopped
        } else if state & UNINTERRUPTIBLE != 0 {
            Self::Uninterruptible
        } else if state & INTERRUPTIBLE != 0 {
            Self::Sleeping
        } else {
            Self::Running
        }
    }

    /// From the letter in /proc/PID/stat (fs/proc/array.c `task_state_array`).
    #[must_use]
    pub const fn from_letter(letter: char) -> Self {
        match letter {
            'R' => Self::Running,
            'S' => Self::Sleeping,
            'D' => Self::Uninterruptible,
            'T' => Self::Stopped,
            't' => Self::Traced,
            'X' | 'x' => Self::Dead,
            'Z' => Self::Zombie,
            'P' => Self::Parked,
            'I' => Self::Idle,
            _ => Self::Unknown,
        }
    }

    /// The letter; `?` if unknown.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::Uninterruptible => 'D',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Dead => 'X',
            Self::Zombie => 'Z',
            Self::Parked => 'P',
            Self::Idle => 'I',
            Self::Unknown => '?',
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_char(f, self.letter())
    }
}

/// One return address of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The address; `None` from /proc, which hides it.
    pub address: Option<u64>,
    /// The function it lies in; `None` if its name is unknown.
    pub symbol: Option<Symbol>,
}

/// A place in a function that a frame points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// The function, with offset and module if known.
    pub place: CodePlace,
    /// The code was generated at run time (a BPF program or trampoline).
    pub generated: bool,
}

impl fmt::Display for Frame {
    /// As the kernel writes it: `schedule+0x5a/0xd0 [module]`, or the bare
    /// address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.symbol, self.address) {
            (Some(symbol), _) => symbol.place.fmt(f),
            (None, Some(address)) => write!(f, "{address:#x}"),
            (None, None) => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_of_real_kernels() {
        for (bits, letter) in [
            (0, 'R'),
            (0x1, 'S'),
            (0x2001, 'S'), // freezable sleep, 6.1+
            (0x2, 'D'),
            (0x102, 'D'), // TASK_KILLABLE
            (0x402, 'I'),
            (0x2402, 'I'),
            (0x104, 'T'),
            (0x108, 't'),
            (0x40, 'P'),
            (0x80, 'X'),
            (0x200, 'R'),  // TASK_WAKING
            (0x800, 'R'),  // TASK_NEW
            (0x1000, 'D'), // TASK_RTLOCK_WAIT
            (0x8000, 'D'), // TASK_FROZEN
            (u32::MAX, '?'),
        ] {
            assert_eq!(TaskState::from_bits(bits).letter(), letter, "{bits:#x}");
        }
    }

    #[test]
    fn frames_look_like_the_kernels() {
        let place = CodePlace {
            name: "lpm_hold".to_owned(),
            offset: Some(0x1c),
            size: Some(0x40),
            module: Some("lpm_target".to_owned()),
        };
        let symbol = |place| {
            Some(Symbol {
                place,
                generated: false,
            })
        };
        let frame = Frame {
            address: Some(1),
            symbol: symbol(place.clone()),
        };
        assert_eq!(frame.to_string(), "lpm_hold+0x1c/0x40 [lpm_target]");
        let kernel = CodePlace {
            module: None,
            size: None,
            ..place
        };
        assert_eq!(
            Frame {
                address: None,
                symbol: symbol(kernel)
            }
            .to_string(),
            "lpm_hold+0x1c"
        );
        let bare = Frame {
            address: Some(0xffff_ffff_c000_1000),
            symbol: None,
        };
        assert_eq!(bare.to_string(), "0xffffffffc0001000");
    }

    proptest! {
        #[test]
        fn letters_go_round(bits in any::<u32>()) {
            let state = TaskState::from_bits(bits);
            prop_assert_eq!(TaskState::from_letter(state.letter()), state);
        }
    }
}
