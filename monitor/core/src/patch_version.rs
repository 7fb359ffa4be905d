//! Derives the fix level from a livepatch's name, and whether patches are versions of one another.
//!
//! Names of modules, as the vendors build them:
//!
//! | vendor | name | version | source |
//! |---|---|---|---|
//! | Red Hat | `kpatch_4_18_0_513_1_6`: kernel, version, release | `1-6` | RHEL 10 documentation, "Access to kernel live patches" |
//! | SUSE | `livepatch_6_1`, `kgraft_patch_7_1`: version, release | `6-1` | kernel-livepatch.spec, `module_num` |
//! | Canonical | `lkp_Ubuntu_5_4_0_26_30_generic_69` | `69` | Ubuntu's LSN records, `module_name_regex` |
//! | others | a trailing number, as in `fix_v2` or `fix_1_3` | `2`, `1-3` | |
//!
//! A number that identifies a bug or an advisory (`livepatch_CVE_2019_20096`) is not a version.

use std::cmp::Ordering;

/// Most digits of a number that is a version; 8 are a date, 20240131.
const MAX_DIGITS: usize = 4;
const DATE_DIGITS: usize = 8;

/// Words after which a number identifies something.
const IDENTIFIES: [&str; 18] = [
    "cve", "bsc", "bnc", "boo", "bug", "bugzilla", "bz", "rhbz", "xsa", "usn", "lsn", "rhsa",
    "elsa", "alas", "issue", "ticket", "jira", "id",
];

/// A version, and the series that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchVersion {
    /// The part of the name that all versions have in common.
    pub line: String,
    /// The numbers, the most significant first; never empty.
    pub numbers: Vec<u64>,
}

impl PatchVersion {
    /// The version that the name of a module states; `None` if it states none.
    #[must_use]
    pub fn of(module: &str) -> Option<Self> {
        let tokens: Vec<&str> = module.split(['_', '-']).collect();
        let first = tokens.iter().rposition(|token| number(token).is_none());
        // Only `kpatch` and `livepatch` are followed by numbers alone.
        let marked = first.filter(|at| marked_number(tokens.get(*at).copied()).is_some());
        let numbers_from = match (marked, first) {
            (Some(at), _) => at,
            (None, Some(at)) => at + 1,
            (None, None) => return None,
        };
        let mut from = numbers_from;
        let stem = tokens.get(..from)?;
        let count = tokens.len() - from;
        if count == 0 || stem.iter().all(|token| token.is_empty()) {
            return None;
        }
        let last = stem.last().copied().unwrap_or_default();
        if marked.is_none() && IDENTIFIES.contains(&last.to_ascii_lowercase().as_str()) {
            return None;
        }
        // Red Hat: the kernel's numbers precede version and release.
        if stem == ["kpatch"] && count > 2 {
            from = tokens.len() - 2;
        } else if stem.first() == Some(&"lkp") {
            from = tokens.len() - 1;
        }
        let numbers: Option<Vec<u64>> = tokens
            .get(from..)?
            .iter()
            .map(|token| marked_number(Some(token)).or_else(|| number(token)))
            .collect();
        Some(Self {
            line: tokens.get(..from)?.join("_"),
            numbers: numbers?,
        })
    }

    /// Compares two versions of one series; `None` if they are of different series.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        (self.line == other.line).then(|| self.numbers.cmp(&other.numbers))
    }

    /// The numbers, as `1-6`.
    #[must_use]
    pub fn text(&self) -> String {
        let numbers: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
        numbers.join("-")
    }
}

/// Whether module `one` is a newer version of module `other`, by their names.
#[must_use]
pub fn is_newer(one: &str, other: &str) -> bool {
    let versions = PatchVersion::of(one).zip(PatchVersion::of(other));
    versions.and_then(|(one, other)| one.compare(&other)) == Some(Ordering::Greater)
}

fn number(token: &str) -> Option<u64> {
    let digits = token.len();
    let plausible = digits <= MAX_DIGITS || (digits == DATE_DIGITS && token.starts_with("20"));
    let is_number = digits > 0 && token.bytes().all(|byte| byte.is_ascii_digit());
    (plausible && is_number).then(|| token.parse().ok())?
}

/// A number with a letter before it, as in `v2` and `r2`.
fn marked_number(token: Option<&str>) -> Option<u64> {
    let token = token?;
    let digits = token
        .strip_prefix(['v', 'V', 'r'])
        .filter(|digits| !digits.is_empty())?;
    number(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_vendor() {
        for (module, expected) in [
            ("kpatch_4_18_0_513_1_6", Some(("kpatch_4_18_0_513", "1-6"))),
            (
                "kpatch_5_14_0_284_11_1_1_3",
                Some(("kpatch_5_14_0_284_11_1", "1-3")),
            ),
            ("livepatch_6_1", Some(("livepatch", "6-1"))),
            ("kgraft_patch_7_1", Some(("kgraft_patch", "7-1"))),
            (
                "lkp_Ubuntu_5_15_0_91_101_generic_104",
                Some(("lkp_Ubuntu_5_15_0_91_101_generic", "104")),
            ),
            (
                "livepatch_0_20_6_1_27_update_15",
                Some(("livepatch_0_20_6_1_27_update", "15")),
            ),
            ("kpatch_fix_v1", Some(("kpatch_fix", "1"))),
            ("kpatch-fix-v2", Some(("kpatch_fix", "2"))),
            ("fix_v1_10", Some(("fix", "1-10"))),
            ("net_fix_20261123", Some(("net_fix", "20261123"))),
            ("livepatch_CVE_2019_20096", None),
            ("livepatch_cve_2019_2009", None),
            ("klp_bsc1217079", None),
            ("klp_bsc_1217", None),
            ("lp_4_19_19__8_0_32_xs8__4_19_19__8_0_33_xs8", None),
            ("livepatch_cifs_lease_buffer_len", None),
            ("1_2", None),
            ("_1", None),
            ("", None),
            ("v2", None),
            ("fix_99999999999999999999", None),
        ] {
            let version = PatchVersion::of(module);
            let found = version
                .as_ref()
                .map(|version| (version.line.as_str(), version.text()));
            let expected = expected.map(|(line, text)| (line, text.to_owned()));
            assert_eq!(found, expected, "{module}");
        }
    }

    #[test]
    fn ten_is_newer_than_nine_and_lines_do_not_mix() {
        assert!(is_newer("fix_v10", "fix_v9"));
        assert!(is_newer("kpatch_4_18_0_513_2_1", "kpatch_4_18_0_513_1_6"));
        assert!(!is_newer("fix_v1", "fix_v1") && !is_newer("fix_v1", "fix_v2"));
        assert!(!is_newer("other_v3", "fix_v2"));
        // Another kernel's patch is of another series.
        assert!(!is_newer("kpatch_4_18_0_514_2_1", "kpatch_4_18_0_513_1_6"));
        assert!(!is_newer("livepatch_CVE_2020_2", "livepatch_CVE_2020_1"));
    }
}
