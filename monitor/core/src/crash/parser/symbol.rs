//! Parses places in code: call traces, and the lines that name the faulting instruction.

use super::super::record::{Frame, Function};

/// Most bytes kept of a name; the kernel's longest symbol has 511.
pub(super) const MAX_NAME: usize = 512;

/// `text`, cut at a character's boundary.
pub(super) fn cut(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

/// `name+0x1/0x2`, `name+0x1/0x2 [module]`, `name+0x1/0x2 [module build-id]`. Only remarks in
/// brackets or parentheses may follow.
pub(super) fn function(text: &str) -> Option<Function> {
    let mut words = text.split_ascii_whitespace();
    let (name, place) = words.next()?.rsplit_once('+')?;
    let (offset, size) = place.split_once('/')?;
    let (offset, size) = (hex(offset)?, hex(size)?);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$:<>@-".contains(&byte);
    if name.is_empty() || !name.bytes().all(named) {
        return None;
    }
    let module = match words.next() {
        None => None,
        Some(word) => match word.strip_prefix('[') {
            Some(module) => {
                let module = module.trim_end_matches(']');
                Some(module).filter(|module| is_module_name(module))?;
                Some(module)
            }
            // `RIP` of old kernels continues with the stack pointer; syzbot adds the line
            // of the source.
            None if word.starts_with('(') || word == "SS:ESP" || word == "RSP" => None,
            None if is_source(word) => None,
            None => return None,
        },
    };
    Some(Function {
        name: cut(name, MAX_NAME),
        offset: Some(offset),
        size: Some(size),
        module: module.map(|module| cut(module, MAX_NAME)),
    })
}

/// A function at the start of a text, and the text after it.
pub(super) fn leading_function(text: &str) -> Option<(Function, &str)> {
    let end = text.find([' ', ',', '(', ')']).unwrap_or(text.len());
    let (place, mut behind) = text.split_at_checked(end)?;
    let mut found = function(place)?;
    if let Some((module, rest)) = behind
        .strip_prefix(" [")
        .and_then(|rest| rest.split_once(']'))
        .filter(|(module, _)| is_module_name(module.split(' ').next().unwrap_or_default()))
    {
        found.module = module.split(' ').next().map(|name| cut(name, MAX_NAME));
        behind = rest;
    }
    // `WARNING: … f+0x1/0x2 [m]()`, up to 4.4
    behind = behind.strip_prefix("()").unwrap_or(behind);
    // Where something else stands there, it may be a module's name that is damaged.
    let plain = behind.is_empty() || behind.starts_with([',', ')']) || behind.starts_with(" (");
    plain.then_some((found, behind))
}

/// `name` or `name [module]`, as `%ps` prints it, and the text after it.
pub(super) fn leading_symbol(text: &str) -> Option<(Function, &str)> {
    let named = |next: char| next.is_ascii_alphanumeric() || "_.$".contains(next);
    let (name, mut behind) =
        text.split_at_checked(text.find(|c| !named(c)).unwrap_or(text.len()))?;
    if name.is_empty() {
        return None;
    }
    let mut module = None;
    if let Some((inner, rest)) = behind
        .strip_prefix(" [")
        .and_then(|rest| rest.split_once(']'))
    {
        let inner = inner.split(' ').next().unwrap_or_default();
        module = is_module_name(inner).then(|| cut(inner, MAX_NAME));
        behind = rest;
    }
    let function = Function {
        name: cut(name, MAX_NAME),
        offset: None,
        size: None,
        module,
    };
    Some((function, behind))
}

/// Whether a word is a source file and a line: `kernel/signal.c:956`, `init/main.c:?`.
fn is_source(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once(':').is_some_and(|(file, line)| {
        let line = line.split(':').next().unwrap_or_default();
        let ends = [".c", ".h", ".S", ".rs"];
        ends.iter().any(|end| file.ends_with(end)) && (digits(line) || line == "?")
    })
}

/// `name kernel/signal.c:956 [inline]`, which syzbot shows for an inlined function.
fn inlined(text: &str) -> Option<Function> {
    let place = text.strip_suffix(" [inline]")?;
    let (name, source) = place.trim().split_once(' ')?;
    let (function, behind) = leading_symbol(name)?;
    (behind.is_empty() && is_source(source)).then_some(function)
}

fn is_module_name(name: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !name.is_empty() && name.bytes().all(named)
}

/// Old kernels, and architectures other than x86, print addresses before the name:
/// `[<ffffffff810>]`, powerpc `[c000000001b7b30] [c008000001230110]`.
fn without_address(mut text: &str) -> &str {
    loop {
        let behind = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
            .filter(|(inner, _)| is_address(inner.trim_matches(['<', '>']).trim()));
        match behind {
            Some((_, behind)) => text = behind.trim_start(),
            None => return text,
        }
    }
}

fn is_address(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    digits == "(null)" || digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An address without a name, where a place is expected.
fn nameless(text: &str) -> Option<Function> {
    let address = text
        .trim_start()
        .split([' ', ')'])
        .next()
        .filter(|word| !word.is_empty())?;
    let hexadecimal =
        |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = match address.strip_prefix("0x") {
        Some(digits) if hexadecimal(digits) => address.to_owned(),
        None if address == "(null)" => "0x0".to_owned(),
        None if address.len() >= 8 && hexadecimal(address) => format!("0x{address}"),
        _ => return None,
    };
    Some(Function {
        name: cut(&name, MAX_NAME),
        offset: None,
        size: None,
        module: None,
    })
}

/// `name (file.c:1 file.h:2) [module]`, as scripts/decode_stacktrace.sh rewrites a
/// place; the module has no brackets in some versions.
fn decoded(text: &str) -> Option<Function> {
    let (name, rest) = text.trim().split_once(" (")?;
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    if name.is_empty() || !name.bytes().all(named) {
        return None;
    }
    let mut depth = 1_u32;
    let close = rest.find(|next| {
        match next {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })?;
    let (files, behind) = rest.split_at_checked(close)?;
    let (file, line) = files.split(' ').next()?.rsplit_once(':')?;
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if !file.contains('.') || !digit(line) {
        return None;
    }
    let mut words = behind.trim_start_matches(')').split_ascii_whitespace();
    let module = words
        .next()
        .map(|word| word.trim_start_matches('[').trim_end_matches(']'));
    // After the module only its build id may follow, and the closing bracket.
    let rest = words.all(|word| word.ends_with(']'));
    if !rest || module.is_some_and(|module| !is_module_name(module)) {
        return None;
    }
    Some(Function {
        name: cut(name, MAX_NAME),
        offset: None,
        size: None,
        module: module.map(|module| cut(module, MAX_NAME)),
    })
}

/// A line of a call trace: ` f+0x1/0x2`, ` ? f+0x1/0x2 [m]`, ` [<ff>] f+0x1/0x2`, ` <IRQ>  [<ff>]
/// f+0x1/0x2`; powerpc `[sp] [ip] f+0x1/0x2 (unreliable)`; s390, where the innermost is a guess,
/// `([<ff>] f+0x1/0x2)`; arm ` f from g+0x1/0x2`; and the output of decode_stacktrace.sh.
pub(super) fn frame(text: &str) -> Option<Frame> {
    let mut text = text.trim();
    // The stack's name, ` <IRQ> ` or ` <<EOE>> `, on the same line in old kernels.
    if let Some(behind) = text.strip_prefix('<') {
        let (name, behind) = behind.split_once('>')?;
        if name.len() > 8 {
            return None;
        }
        text = behind.trim_start_matches('>').trim_start();
    }
    let guessed = text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'));
    let text = without_address(guessed.unwrap_or(text));
    let doubted = text.strip_prefix("? ");
    let place = doubted.unwrap_or(text).trim_start();
    // arch/arm/kernel/traps.c: since 6.0; before
    let called = place
        .split_once(" from ")
        .map(|(_, place)| without_address(place).trim_matches(['(', ')']));
    let function = function(place)
        .or_else(|| function(called?))
        .or_else(|| decoded(place))
        .or_else(|| inlined(place))
        .or_else(|| nameless(place).filter(|_| text.starts_with("0x") || doubted.is_some()))?;
    let unreliable = doubted.is_some() || guessed.is_some() || place.ends_with("(unreliable)");
    Some(Frame {
        function,
        reliable: !unreliable,
    })
}

/// Prefixes of the faulting instruction's place: arm64 and riscv, arm and older arm64, powerpc,
/// s390 (in parentheses), loongarch, mips, 32-bit x86, and x86's earlier line of the same. riscv up
/// to 5.11 shows only the address.
const INSTRUCTION: &[&str] = &[
    "pc : ",
    "epc : ",
    "epc: ",
    "PC is at ",
    "NIP ",
    "Krnl PSW : ",
    "ERA: ",
    "ERA   : ",
    "epc   : ",
    "EIP: ",
    "EIP is at ",
    "IP: ",
];

/// The line of an instruction pointer has no more than the address: consoles that show
/// each printk() on its own put the place on the next line.
pub(super) fn place_follows(text: &str) -> bool {
    let place = text.trim().strip_prefix("IP:").or_else(|| {
        let (selector, place) = text.trim().strip_prefix("RIP: ")?.split_once(':')?;
        (u16::from_str_radix(selector, 16).ok()? & 3 == 0).then_some(place)
    });
    place.is_some_and(|place| without_address(place.trim_start()).is_empty())
}

/// `[<80105558>] (show_stack) from [<8016d06c>] (panic+0xb8/0x248)`: 32-bit ARM.
pub(super) fn is_arm_frame(text: &str) -> bool {
    text.starts_with("[<") && text.contains(">] (") && text.contains(") from [<")
}

/// The instruction pointer of a register dump, if it is the kernel's: `RIP:
/// 0010:f+0x1/0x2 [m]`, `RIP: 0010:[<ff>]  [<ff>] f+0x1/0x2`, and those of
/// [`INSTRUCTION`].
pub(super) fn instruction(text: &str) -> Option<Function> {
    let text = text.trim_start();
    if text.ends_with(" [inline]") {
        // The function that it is part of is on the next line.
        return None;
    }
    if let Some(place) = text.strip_prefix("MCE: CPU") {
        let (_, place) = place.split_once(": NIP: ")?;
        return place_of(place);
    }
    if let Some(place) = text.strip_prefix("mce: [Hardware Error]: RIP ") {
        return machine_check(place);
    }
    if let Some(place) = text.strip_prefix("RIP: ") {
        let (selector, place) = place.split_once(':')?;
        // The lowest bits of the code segment are the privilege: 0 is the kernel.
        if u16::from_str_radix(selector, 16).ok()? & 3 != 0 {
            return None;
        }
        return place_of(place);
    }
    let start = INSTRUCTION.iter().find(|start| text.starts_with(**start))?;
    let place = text.strip_prefix(start)?;
    match *start {
        // The PSW's mask and address, and the place in parentheses.
        "Krnl PSW : " => {
            let (_, place) = place.split_once('(')?;
            place_of(place.trim_end().trim_end_matches(')'))
        }
        "ERA: " | "ERA   : " | "epc   : " => {
            let (_, place) = place.trim_start().split_once(' ')?;
            place_of(place)
        }
        // `EIP: 0060:[<c0>] EFLAGS:` has no name, nor has arm64's older `pc : [<ff>]`.
        "epc: " => nameless(place),
        "EIP: " | "pc : " | "epc : " => {
            let place = place.trim_start();
            function(place).or_else(|| decoded(place)).or_else(|| {
                nameless(place).filter(|_| place.split(' ').count() == 1 && place.starts_with("0x"))
            })
        }
        _ => place_of(place),
    }
}

/// `10:<ffffffff81a3c1f2> {f+0x1/0x2 [m]}` (arch/x86/kernel/cpu/mce/core.c); with
/// `!INEXACT!` before it, it is not the instruction that failed.
fn machine_check(place: &str) -> Option<Function> {
    let (selector, place) = place.split_once(':')?;
    if u16::from_str_radix(selector, 16).ok()? & 3 != 0 {
        return None;
    }
    let (_, place) = place.split_once('{')?;
    place_of(place.trim_end().trim_end_matches('}'))
}

pub(super) fn place_of(text: &str) -> Option<Function> {
    let place = without_address(text.trim_start());
    function(place)
        .or_else(|| decoded(place))
        .or_else(|| nameless(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(String, bool)> {
        frame(text).map(|frame| (frame.function.to_string(), frame.reliable))
    }

    #[test]
    fn frames_of_every_age() {
        for (line, text, reliable) in [
            ("  ? _printk+0x64/0x80", "_printk+0x64/0x80", false),
            ("  f+0x1/0x2 [m]", "f+0x1/0x2 [m]", true),
            ("  f+0x1/0x2 [m 0123abcd]", "f+0x1/0x2 [m]", true),
            (
                " [<ffffffff81098e1b>] panic+0xc8/0x21e",
                "panic+0xc8/0x21e",
                true,
            ),
            (
                " [<ffffffff81098e1b>] ? f.isra.3+0xc8/0x21e",
                "f.isra.3+0xc8/0x21e",
                false,
            ),
            (
                " <NMI>  [<ffffffff813f>] dump_stack+0x63/0x90",
                "dump_stack+0x63/0x90",
                true,
            ),
            (
                " <<EOE>>  [<ffffffff813f>] multi_cpu_stop+0x63/0x90",
                "multi_cpu_stop+0x63/0x90",
                true,
            ),
        ] {
            assert_eq!(shown(line), Some((text.to_owned(), reliable)), "{line}");
        }
        for line in [
            " <TASK>",
            "Code: 1+0x",
            "RAX: 0000",
            "a b+0x1/0x2",
            "é+0x1/0x2",
            "+0x1/0x2",
        ] {
            assert_eq!(shown(line), None, "{line}");
        }
    }

    #[test]
    fn the_kernels_instruction_only() {
        let shown = |text| instruction(text).map(|function| function.to_string());
        assert_eq!(
            shown("RIP: 0010:f+0x1/0x2 [m]").as_deref(),
            Some("f+0x1/0x2 [m]")
        );
        assert_eq!(
            shown("RIP: 0010:[<ffffffff8142>]  [<ffffffff8142>] f+0x1/0x2").as_deref(),
            Some("f+0x1/0x2")
        );
        assert_eq!(shown("RIP: e030:f+0x1/0x2").as_deref(), Some("f+0x1/0x2"));
        assert_eq!(shown("RIP: 0010:0x0").as_deref(), Some("0x0"));
        assert_eq!(shown("RIP: 0033:0x47b7a0"), None);
    }
}
