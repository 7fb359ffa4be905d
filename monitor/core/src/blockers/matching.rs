//! Checks whether a stack contains a function that must be left.

use std::collections::BTreeMap;

use super::{CheckedFunc, Direction, Frame, Scan, Symbol, printable};

/// What a stack contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match<'a> {
    /// A function that must be left, on the stack.
    Function(&'a CheckedFunc),
    /// Code of this livepatch's module; the function cannot be determined.
    Module(&'a str),
    /// No function on the stack must be left.
    Nothing,
}

/// Index over a scan's checked functions, for matching many stacks.
pub(super) struct Matcher<'a> {
    /// Sorted by start address; overlapping ranges are all kept.
    ranges: Vec<(u64, u64, &'a CheckedFunc)>,
    /// Length of the longest range: the farthest that a range containing an address can start
    /// before it.
    longest: u64,
    /// The functions without a range, by name.
    names: BTreeMap<&'a str, Vec<&'a CheckedFunc>>,
    /// Livepatch modules that may contain the code that must be left.
    modules: Vec<&'a str>,
    direction: Direction,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(scan: &'a Scan) -> Self {
        let mut ranges = Vec::new();
        let mut names: BTreeMap<&str, Vec<&CheckedFunc>> = BTreeMap::new();
        for func in scan.funcs.iter().flatten() {
            match &func.range {
                Some(range) => ranges.push((range.start, range.end, func)),
                None => names.entry(&func.function.function).or_default().push(func),
            }
        }
        ranges.sort_by_key(|(start, ..)| *start);
        let longest = ranges
            .iter()
            .map(|(start, end, _)| end.saturating_sub(*start))
            .max()
            .unwrap_or(0);
        // Unpatching: this patch's own code must be left. Patching: the code before it, which is
        // another livepatch's if that one has patched it already.
        let modules = match scan.direction {
            _ if names.is_empty() => Vec::new(),
            Direction::Unpatch => vec![scan.patch.as_str()],
            Direction::Patch => scan
                .patches
                .iter()
                .map(String::as_str)
                .filter(|name| *name != scan.patch)
                .collect(),
        };
        Self {
            ranges,
            longest,
            names,
            modules,
            direction: scan.direction,
        }
    }

    /// The innermost function that must be left; failing that, the innermost frame in a livepatch's
    /// module whose function cannot be determined.
    pub(super) fn on_stack(&self, stack: &'a [Frame]) -> Match<'a> {
        let mut module = Match::Nothing;
        for frame in stack {
            if let Some(func) = frame.address.and_then(|address| self.at(address)) {
                return Match::Function(func);
            }
            let Some(symbol) = &frame.symbol else {
                continue;
            };
            if let Some(func) = self.named(symbol) {
                return Match::Function(func);
            }
            if let (Match::Nothing, Some(name)) = (module, self.livepatch(symbol)) {
                module = Match::Module(name);
            }
        }
        module
    }

    /// `address >= func_addr && address < func_addr + func_size`, as
    /// klp_check_stack_func has it.
    fn at(&self, address: u64) -> Option<&'a CheckedFunc> {
        let after = self.ranges.partition_point(|(start, ..)| *start <= address);
        self.ranges
            .iter()
            .take(after)
            .rev()
            .take_while(|(start, ..)| address - start < self.longest)
            .find(|(_, end, _)| address < *end)
            .map(|(.., func)| *func)
    }

    /// Matches a function without a range by its name and by the module that can contain its code
    /// in force. While unpatching that is the patch's own module. (Without addresses, several
    /// functions with one name in an object cannot be distinguished.)
    fn named(&self, symbol: &Symbol) -> Option<&'a CheckedFunc> {
        let candidates = self.names.get(symbol.place.name.as_str())?;
        let module = symbol.place.module.as_deref();
        if self.livepatch(symbol).is_some() {
            return candidates.first().copied();
        }
        candidates
            .iter()
            .copied()
            .find(|func| self.original_in_force() && module == func.function.module())
    }

    /// While unpatching, the original function is where tasks are going, not what they must leave.
    fn original_in_force(&self) -> bool {
        self.direction == Direction::Patch
    }

    fn livepatch(&self, symbol: &Symbol) -> Option<&'a str> {
        let module = symbol.place.module.as_deref()?;
        self.modules.iter().copied().find(|name| *name == module)
    }
}

/// "lpm_hold (module lpm_target), which the patch replaces".
pub(super) fn place(scan: &Scan, func: &CheckedFunc) -> String {
    let name = printable(func.function.function.as_bytes());
    let object = match func.function.module() {
        Some(module) => format!("module {}", printable(module.as_bytes())),
        None => "kernel".to_owned(),
    };
    match scan.direction {
        Direction::Patch => format!("{name} ({object}), which the patch replaces"),
        Direction::Unpatch => {
            let patch = printable(scan.patch.as_bytes());
            format!("{patch}'s version of {name} ({object}), which is being removed")
        }
    }
}
