//! Places in code, call traces, module lists, task headers.

use super::super::record::{Frame, Function, Marker, Module};

/// Bytes of a name that are kept; the kernel's longest symbol has 511.
pub(super) const MAX_NAME: usize = 512;
/// Modules of a list that are kept.
pub(super) const MAX_MODULES: usize = 1024;

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

/// `name+0x1/0x2`, `name+0x1/0x2 [module]`, `name+0x1/0x2 [module build-id]`.
/// Nothing else may follow but remarks in brackets or parentheses.
pub(super) fn function(text: &str) -> Option<Function> {
    let mut words = text.split_ascii_whitespace();
    let (name, place) = words.next()?.rsplit_once('+')?;
    let (offset, size) = place.split_once('/')?;
    let (offset, size) = (hex(offset)?, hex(size)?);
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_.$:<>@-".contains(&byte);
    if name.is_empty() || !name.bytes().all(named) {
        return None;
    }
    let module = words
        .next()
        .and_then(|word| word.strip_prefix('['))
        .map(|word| word.trim_end_matches(']'))
        .filter(|module| !module.is_empty());
    Some(Function {
        name: cut(name, MAX_NAME),
        offset: Some(offset),
        size: Some(size),
        module: module.map(|module| cut(module, MAX_NAME)),
    })
}

/// A function at the start of a text, and what stands behind it.
pub(super) fn leading_function(text: &str) -> Option<(Function, &str)> {
    let end = text.find([' ', ',', ')']).unwrap_or(text.len());
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
    Some((found, behind))
}

fn is_module_name(name: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !name.is_empty() && name.bytes().all(named)
}

/// Old kernels put addresses before the name: `[<ffffffff810>]`.
fn without_address(mut text: &str) -> &str {
    while let Some((_, behind)) = text
        .strip_prefix("[<")
        .and_then(|rest| rest.split_once(">]"))
    {
        text = behind.trim_start();
    }
    text
}

/// A line of a call trace: ` f+0x1/0x2`, ` ? f+0x1/0x2 [m]`, ` [<ff>] f+0x1/0x2`,
/// ` <IRQ>  [<ff>] f+0x1/0x2`.
pub(super) fn frame(text: &str) -> Option<Frame> {
    let mut text = text.trim_start();
    // The stack's name, ` <IRQ> ` or ` <<EOE>> `, on the same line in old kernels.
    if let Some(behind) = text.strip_prefix('<') {
        let (name, behind) = behind.split_once('>')?;
        if name.len() > 8 {
            return None;
        }
        text = behind.trim_start_matches('>').trim_start();
    }
    text = without_address(text);
    let unreliable = text.strip_prefix("? ");
    let function = function(unreliable.unwrap_or(text).trim_start())?;
    Some(Frame {
        function,
        reliable: unreliable.is_none(),
    })
}

/// The instruction pointer of a register dump, if it is the kernel's: `RIP:
/// 0010:f+0x1/0x2 [m]`, `RIP: 0010:[<ff>]  [<ff>] f+0x1/0x2`, arm64's `pc : f+0x1/0x2`.
pub(super) fn instruction(text: &str) -> Option<Function> {
    if let Some(place) = text.trim_start().strip_prefix("pc : ") {
        return function(place.trim_start());
    }
    let place = text.trim_start().strip_prefix("RIP: ")?;
    let (selector, place) = place.split_once(':')?;
    // The lowest bits of the code segment are the privilege: 0 is the kernel.
    if u16::from_str_radix(selector, 16).ok()? & 3 != 0 {
        return None;
    }
    let place = without_address(place.trim_start());
    function(place).or_else(|| {
        // A jump to nowhere: the address is all there is.
        let address = place.split_ascii_whitespace().next()?;
        hex(address)?;
        Some(Function {
            name: cut(address, MAX_NAME),
            offset: None,
            size: None,
            module: None,
        })
    })
}

/// The words behind `Modules linked in:`, or a line that goes on with them.
/// None if one is not a module, or there are more than [`MAX_MODULES`].
pub(super) fn modules(text: &str) -> Option<Vec<Module>> {
    let list = text.split_once('[').map_or(text, |(list, _)| list);
    let modules: Option<Vec<Module>> = list
        .split_ascii_whitespace()
        .take(MAX_MODULES + 1)
        .map(module)
        .collect();
    modules.filter(|modules| modules.len() <= MAX_MODULES)
}

/// `name`, `name(OE)`, `name(K+)`.
fn module(word: &str) -> Option<Module> {
    let (name, flags) = match word.split_once('(') {
        Some((name, flags)) => (name, flags.strip_suffix(')')?),
        None => (word, ""),
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.is_empty() || !name.bytes().all(named) {
        return None;
    }
    let (taints, state) = match flags.strip_suffix(['+', '-']) {
        Some(taints) if flags.ends_with('+') => (taints, Marker::Loading),
        Some(taints) => (taints, Marker::Unloading),
        None => (flags, Marker::Live),
    };
    taints
        .bytes()
        .all(|byte| byte.is_ascii_uppercase())
        .then(|| Module {
            name: cut(name, MAX_NAME),
            taints: cut(taints, 32),
            state,
        })
}

/// What `CPU: … Comm: … Tainted: … RELEASE` tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TaskHeader {
    pub(super) cpu: Option<u32>,
    pub(super) pid: Option<u32>,
    pub(super) comm: Option<String>,
    pub(super) taint: Option<String>,
    pub(super) release: Option<String>,
}

/// `CPU: 1 UID: 0 PID: 1 Comm: init Not tainted 6.12.1 #1 …`; and of a hung task
/// only `      Tainted: G  O K  6.12.1 #1 …`. A comm may hold anything.
pub(super) fn task_header(text: &str) -> Option<TaskHeader> {
    let text = text.trim_start();
    let mut header = TaskHeader::default();
    let state = if let Some(rest) = text.strip_prefix("CPU: ") {
        let (numbers, rest) = rest.split_once(" Comm: ")?;
        let mut words = numbers.split_ascii_whitespace();
        header.cpu = words.next()?.parse().ok();
        header.pid = words
            .skip_while(|word| *word != "PID:")
            .nth(1)
            .and_then(|pid| pid.parse().ok());
        let at = rest
            .rfind(" Tainted: ")
            .or_else(|| rest.rfind(" Not tainted "));
        let (comm, state) = rest.split_at_checked(at?)?;
        header.comm = Some(cut(comm, MAX_NAME));
        state.trim_start()
    } else {
        text
    };
    let words = if let Some(rest) = state.strip_prefix("Not tainted ") {
        header.taint = Some(String::new());
        rest
    } else {
        // The second, longer list of 6.12 is `Tainted: [O]=OOT_MODULE, …`.
        let rest = state.strip_prefix("Tainted: ")?;
        let letters: String = rest
            .split_ascii_whitespace()
            .take_while(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()))
            .collect();
        // Flag 0 has a letter for its absence too.
        header.taint = Some(cut(&letters.replace('G', ""), 64));
        if letters.is_empty() {
            return None;
        }
        rest
    };
    header.release = words
        .split_ascii_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(|release| cut(release, MAX_NAME));
    Some(header)
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

    #[test]
    fn modules_and_their_markers() {
        let list = modules(" a b(OE) c-d(K+) e(-) [last unloaded: f(O)]").unwrap();
        let shown: Vec<_> = list
            .iter()
            .map(|module| (module.name.as_str(), module.taints.as_str(), module.state))
            .collect();
        assert_eq!(
            shown,
            [
                ("a", "", Marker::Live),
                ("b", "OE", Marker::Live),
                ("c-d", "K", Marker::Loading),
                ("e", "", Marker::Unloading),
            ]
        );
        assert_eq!(modules("CPU: 1 PID: 2"), None);
    }

    #[test]
    fn a_comm_that_lies() {
        let header = task_header(
            "CPU: 3 UID: 0 PID: 77 Comm: a Tainted: K 1 Tainted: G           OE K    6.12.9 #1 x",
        );
        let header = header.unwrap();
        assert_eq!((header.cpu, header.pid), (Some(3), Some(77)));
        assert_eq!(header.comm.as_deref(), Some("a Tainted: K 1"));
        assert_eq!(header.taint.as_deref(), Some("OEK"));
        assert_eq!(header.release.as_deref(), Some("6.12.9"));
    }
}
