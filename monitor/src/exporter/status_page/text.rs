//! Foreign text on the page.

use livepatch_core::crash::display;

/// What stands in the place of an address.
const HIDDEN: &str = "(address)";

/// Foreign text made fit to show to whoever may see the page: characters that reverse or hide
/// text are made visible, and addresses of the kernel are left out.
pub(super) fn shown(text: &str) -> String {
    display::shown(&without_addresses(text))
}

/// A sentence of [`display`], in which foreign text has been made fit to show, without the
/// addresses of the kernel.
pub(super) fn without_addresses(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for piece in text.split_inclusive(|c| !is_part(c)) {
        let word = piece.trim_end_matches(|c| !is_part(c));
        if is_kernel_address(word) {
            shown.push_str(HIDDEN);
            shown.extend(piece.chars().skip(word.len()));
        } else {
            shown.push_str(piece);
        }
    }
    shown
}

/// Whether a word may be an address of the kernel. With `0x` it has no leading zeros, and s390 has
/// its kernel above 4 GiB; without, all 16 digits are printed, and the kernels of the other
/// architectures are in the upper half, or at least above 2^48
/// (Documentation/arch/x86/x86_64/mm.rst, Documentation/arch/arm64/memory.rst).
fn is_kernel_address(word: &str) -> bool {
    let prefixed = word.strip_prefix("0x");
    let digits = prefixed.unwrap_or(word);
    let (length, least) = match prefixed {
        Some(_) => (9..=16, 1 << 32),
        None => (16..=16, 1 << 48),
    };
    length.contains(&digits.len())
        && u64::from_str_radix(digits, 16).is_ok_and(|value| value >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_kernel_are_left_out() {
        for (text, expected) in [
            (
                "BUG: unable to handle page fault for address: ffffc90000123000",
                "BUG: unable to handle page fault for address: (address)",
            ),
            ("0xffffffffc0123456", "(address)"),
            ("[<ffffffffc0123456>] f+0x1/0x2", "[<(address)>] f+0x1/0x2"),
            ("x=0x3ffe0b2a0c,y", "x=(address),y"),
            ("at c000000000a5c3d0", "at (address)"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn other_numbers_stay() {
        for text in [
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "Internal error: Oops: 0000000096000004 [#1] SMP",
            "7E5C8D2A9B1F4E6D3C0A7B8",
            "20261123T124908Z-oops-20404707",
            "schedule_timeout+0x94/0xd0 [nf_tables]",
            "livepatch_ffffffffc0123456",
            "",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
