//! Queries the kernel itself for the addresses of names.
//!
//! To read /proc/kallsyms for a handful of names, the kernel has to format all of it: some 490
//! million instructions. Since 5.16 a BPF program of type `SYSCALL` may query one
//! (`bpf_kallsyms_lookup_name`, kernel/bpf/syscall.c; a binary search since 6.2). aya does not
//! support programs of this type, so this one is assembled and run here. It hides the same
//! addresses as the file: the helper checks `bpf_dump_raw_ok` as well.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use rustix::io::Errno;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_TYPE_SYSCALL: u32 = 31;
/// Programs of this type must be loaded as sleepable.
const BPF_F_SLEEPABLE: u32 = 1 << 4;
const BPF_FUNC_KALLSYMS_LOOKUP_NAME: i32 = 179;

/// Bytes of the program's stack for a name with its NUL.
const NAME: usize = 32;
/// Offsets on the stack of the name and of the returned address.
const NAME_AT: i16 = -48;
const ADDRESS_AT: i16 = -8;

/// Why the kernel was not queried, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the name {0} is too long")]
    Name(String),
    #[error("{call}: {source}")]
    Call {
        call: &'static str,
        source: io::Error,
    },
    #[error("the kernel refuses: {0}")]
    Refused(io::Error),
}

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD` (include/uapi/linux/bpf.h).
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// `union bpf_attr` for `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct Run {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
}

/// What the program stores in its context for each name.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Answer {
    address: u64,
    /// 0, or an error number below it.
    result: i64,
}

/// The address of each name, in their order; `None` if the kernel has no such symbol.
///
/// # Errors
/// The kernel is older than 5.16, does not load the program, or hides its addresses.
pub(super) fn addresses(names: &[&str]) -> Result<Vec<Option<u64>>, LookupError> {
    let program = load(&Encoding::NATIVE.program(names)?)?;
    let mut answers = vec![Answer::default(); names.len()];
    run(&program, &mut answers)?;
    let answers = answers.into_iter().map(|answer| match answer.result {
        0 => Ok(Some(answer.address).filter(|address| *address != 0)),
        result if result == -i64::from(Errno::NOENT.raw_os_error()) => Ok(None),
        result => {
            let number = i32::try_from(-result).unwrap_or_default();
            Err(LookupError::Refused(io::Error::from_raw_os_error(number)))
        }
    });
    answers.collect()
}

/// One BPF instruction.
type Instruction = [u8; 8];

/// How a machine's kernel reads instructions (Documentation/bpf/standardization/instruction-set.rst):
/// their numbers are in its byte order, and on a big-endian one the two registers of the second
/// byte change places.
#[derive(Clone, Copy)]
struct Encoding {
    big_endian: bool,
}

impl Encoding {
    /// That of this machine.
    const NATIVE: Self = Self {
        big_endian: cfg!(target_endian = "big"),
    };

    fn instruction(self, code: u8, target: u8, source: u8, offset: i16, value: i32) -> Instruction {
        let (registers, [o, p], [a, b, c, d]) = if self.big_endian {
            (
                target << 4 | source,
                offset.to_be_bytes(),
                value.to_be_bytes(),
            )
        } else {
            (
                source << 4 | target,
                offset.to_le_bytes(),
                value.to_le_bytes(),
            )
        };
        [code, registers, o, p, a, b, c, d]
    }

    /// Sets a register to the number that is these eight bytes in memory: its lower half is in
    /// the first instruction, its upper half in the second.
    fn set_to_bytes(self, target: u8, bytes: [u8; 8]) -> [Instruction; 2] {
        const SET_WORD: u8 = 0x18;
        let [a, b, c, d, e, f, g, h] = bytes;
        let (low, high) = if self.big_endian {
            (
                i32::from_be_bytes([e, f, g, h]),
                i32::from_be_bytes([a, b, c, d]),
            )
        } else {
            (
                i32::from_le_bytes([a, b, c, d]),
                i32::from_le_bytes([e, f, g, h]),
            )
        };
        [
            self.instruction(SET_WORD, target, 0, 0, low),
            self.instruction(0, 0, 0, 0, high),
        ]
    }

    /// Queries each name and stores the answers in the context.
    fn program(self, names: &[&str]) -> Result<Vec<Instruction>, LookupError> {
        const MOVE: u8 = 0xbf;
        const SET: u8 = 0xb7;
        const ADD: u8 = 0x07;
        const LOAD_WORD: u8 = 0x79;
        const STORE_WORD: u8 = 0x7b;
        const CALL: u8 = 0x85;
        const EXIT: u8 = 0x95;
        const STACK: u8 = 10;

        let instruction = |code, target, source, offset, value| {
            self.instruction(code, target, source, offset, value)
        };
        // Register 6 is preserved across the calls.
        let mut program = vec![instruction(MOVE, 6, 1, 0, 0)];
        for (name, answer) in names.iter().zip((0_i16..).step_by(size_of::<Answer>())) {
            if name.len() >= NAME {
                return Err(LookupError::Name((*name).to_owned()));
            }
            let mut text = name.as_bytes().to_vec();
            text.resize(NAME, 0);
            let (words, _) = text.as_chunks::<8>();
            for (word, at) in words.iter().zip((NAME_AT..).step_by(8)) {
                program.extend(self.set_to_bytes(1, *word));
                program.push(instruction(STORE_WORD, STACK, 1, at, 0));
            }
            // The name's length is below NAME.
            let length = i32::try_from(name.len() + 1).unwrap_or_default();
            program.extend([
                instruction(SET, 1, 0, 0, 0),
                instruction(STORE_WORD, STACK, 1, ADDRESS_AT, 0),
                instruction(MOVE, 1, STACK, 0, 0),
                instruction(ADD, 1, 0, 0, NAME_AT.into()),
                instruction(SET, 2, 0, 0, length),
                instruction(SET, 3, 0, 0, 0),
                instruction(MOVE, 4, STACK, 0, 0),
                instruction(ADD, 4, 0, 0, ADDRESS_AT.into()),
                instruction(CALL, 0, 0, 0, BPF_FUNC_KALLSYMS_LOOKUP_NAME),
                instruction(LOAD_WORD, 1, STACK, ADDRESS_AT, 0),
                instruction(STORE_WORD, 6, 1, answer, 0),
                instruction(STORE_WORD, 6, 0, answer + 8, 0),
            ]);
        }
        program.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
        Ok(program)
    }
}

fn load(program: &[Instruction]) -> Result<OwnedFd, LookupError> {
    let license = c"GPL";
    let attributes = Load {
        prog_type: BPF_PROG_TYPE_SYSCALL,
        insn_cnt: u32::try_from(program.len()).unwrap_or_default(),
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: BPF_F_SLEEPABLE,
    };
    // SAFETY: the attributes have the layout that the kernel expects for their size; the
    // instructions and the licence live longer than the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attributes,
            size_of::<Load>(),
        )
    };
    let descriptor = checked("BPF_PROG_LOAD", result)?;
    // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn run(program: &OwnedFd, answers: &mut [Answer]) -> Result<(), LookupError> {
    let mut attributes = Run {
        prog_fd: u32::try_from(program.as_raw_fd()).unwrap_or_default(),
        retval: 0,
        data_size_in: 0,
        data_size_out: 0,
        data_in: 0,
        data_out: 0,
        repeat: 0,
        duration: 0,
        ctx_size_in: u32::try_from(size_of_val(answers)).unwrap_or_default(),
        ctx_size_out: 0,
        ctx_in: answers.as_mut_ptr() as u64,
        ctx_out: 0,
        flags: 0,
        cpu: 0,
    };
    // SAFETY: as for loading; the kernel copies the context back to the answers, which
    // have exactly the size given and are valid whatever bytes they hold.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attributes,
            size_of::<Run>(),
        )
    };
    checked("BPF_PROG_TEST_RUN", result).map(drop)
}

fn checked(call: &'static str, result: libc::c_long) -> Result<i32, LookupError> {
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(LookupError::Call {
            call,
            source: io::Error::last_os_error(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Encoding = Encoding { big_endian: false };
    const BIG: Encoding = Encoding { big_endian: true };

    /// As `llvm-objdump` shows the same program in C, built for bpfel and bpfeb.
    #[test]
    fn instructions_are_encoded_as_the_kernel_reads_them() {
        for (code, target, source, offset, value, little, big) in [
            (
                0xbf,
                6,
                1,
                0,
                0,
                [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
                [0xbf, 0x61, 0, 0, 0, 0, 0, 0],
            ),
            (
                0x7b,
                10,
                1,
                -48,
                0,
                [0x7b, 0x1a, 0xd0, 0xff, 0, 0, 0, 0],
                [0x7b, 0xa1, 0xff, 0xd0, 0, 0, 0, 0],
            ),
            (
                0x85,
                0,
                0,
                0,
                179,
                [0x85, 0, 0, 0, 179, 0, 0, 0],
                [0x85, 0, 0, 0, 0, 0, 0, 179],
            ),
        ] {
            let encoded = |of: Encoding| of.instruction(code, target, source, offset, value);
            assert_eq!(encoded(LITTLE), little);
            assert_eq!(encoded(BIG), big);
        }
    }

    #[test]
    fn a_name_has_its_bytes_in_order_when_its_words_are_stored() {
        assert_eq!(
            LITTLE.set_to_bytes(1, *b"klp_patc"),
            [*b"\x18\x01\0\0klp_", *b"\0\0\0\0patc"]
        );
        assert_eq!(
            BIG.set_to_bytes(1, *b"klp_patc"),
            [*b"\x18\x10\0\0patc", *b"\0\0\0\0klp_"]
        );
    }

    #[test]
    fn each_name_has_its_instructions_and_its_answer() {
        let one = LITTLE.program(&["klp_patches"]).unwrap();
        let two = LITTLE
            .program(&["klp_patches", "klp_transition_patch"])
            .unwrap();
        assert_eq!(two.len() - one.len(), one.len() - 3);
        // The second answer's error number is the last that is stored.
        let last = two[two.len() - 3];
        assert_eq!((last[0], last[1], last[2]), (0x7b, 0x06, 24));
        let error = LITTLE
            .program(&["a_name_of_32_bytes_is_one_too_lon"])
            .unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    /// If the kernel answers, the answer agrees with the file.
    #[test]
    fn the_kernel_and_the_file_agree() {
        let names = ["_stext", "kfree", "schedule", "no_such_symbol_here"];
        let Ok(addresses) = addresses(&names) else {
            println!("not compared: this kernel or this user cannot ask");
            return;
        };
        let found = crate::kernel::kallsyms::find("/proc".as_ref(), &names).unwrap();
        for (name, address) in names.iter().zip(addresses) {
            assert_eq!(address, found.in_vmlinux(name), "{name}");
        }
    }
}
