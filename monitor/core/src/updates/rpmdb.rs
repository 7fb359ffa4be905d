//! Installed packages, from rpm's database.
//!
//! The database is `rpmdb.sqlite` in /usr/lib/sysimage/rpm or /var/lib/rpm (rpm 4.16 and later,
//! lib/backend/sqlite.c). Its table `Packages` has a header for each package, its table `Name` the
//! numbers of the headers of each name. Only the headers of packages that are requested, or that
//! are installed twice, are read: a header has about 20 KiB, the table `Name` a few dozen bytes per
//! package.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use super::sqlite::{Database, ReadAt, SqliteError, Value};

/// Most packages whose headers are read.
const MAX_HEADERS: usize = 8192;
/// Most entries of a header's index; lib/header.c allows 0xffff.
const MAX_TAGS: usize = 0xffff;

/// A package that the rpm database has as installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Installed {
    /// Name of the package.
    pub name: String,
    /// Architecture of the package, such as `x86_64`.
    pub arch: String,
    /// Its epoch; 0 if it has none.
    pub epoch: u32,
    /// Version without epoch and release.
    pub version: String,
    /// Release of the package, such as `1.el9`.
    pub release: String,
    /// The transaction that installed it (`INSTALLTID`): its start, in seconds since 1970.
    pub transaction: Option<u32>,
    /// Whether several versions of it may be installed at the same time.
    pub install_only: bool,
    /// Whether it has a script for the end of the transaction (`%posttrans`).
    pub posttrans: bool,
}

impl Installed {
    /// Version and release, after the epoch if there is one.
    #[must_use]
    pub fn evr(&self) -> String {
        evr(self.epoch, &self.version, &self.release)
    }
}

/// `EPOCH:VERSION-RELEASE`, without an epoch of 0.
#[must_use]
pub fn evr(epoch: u32, version: &str, release: &str) -> String {
    match epoch {
        0 => format!("{version}-{release}"),
        epoch => format!("{epoch}:{version}-{release}"),
    }
}

/// Whether rpm's database contains any package: on a host of another package manager it may exist
/// and be empty.
///
/// # Errors
/// The database is damaged, or of another schema.
pub fn has_packages<R: ReadAt>(database: &Database<R>) -> Result<bool, SqliteError> {
    let table = database.table("Name")?;
    let mut found = false;
    database.rows(&table, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The installed packages with one of these names, and all packages that are installed more than
/// once, including those that may be installed in several versions.
///
/// # Errors
/// The database is damaged, or of another schema.
pub fn installed<R: ReadAt>(
    database: &Database<R>,
    names: &BTreeSet<String>,
) -> Result<Vec<Installed>, SqliteError> {
    let table = database.table("Name")?;
    let (key, number) = (table.column("key")?, table.column("hnum")?);
    let mut headers: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
    database.rows(&table, &mut |_, row| {
        let name = row.get(key).and_then(Value::text);
        let header = row.get(number).and_then(Value::integer);
        if let (Some(name), Some(header)) = (name, header) {
            headers.entry(name).or_default().insert(header);
        }
        ControlFlow::Continue(())
    })?;
    headers.retain(|name, headers| headers.len() > 1 || names.contains(name));
    let numbers: Vec<i64> = headers.into_values().flatten().collect();
    if numbers.len() > MAX_HEADERS {
        return Err(SqliteError::TooLarge("8192 packages in one transaction"));
    }
    let table = database.table("Packages")?;
    let blob = table.column("blob")?;
    let mut installed = Vec::new();
    for number in numbers {
        let row = database.row(&table, number)?;
        let row = row.ok_or(SqliteError::Damaged("a package has no header"))?;
        let header = match row.get(blob) {
            Some(Value::Blob(bytes) | Value::Text(bytes)) => header(bytes),
            _ => None,
        };
        installed.push(header.ok_or(SqliteError::Damaged(
            "a package's header is not a valid RPM header",
        ))?);
    }
    Ok(installed)
}

/// Tags of a header (include/rpm/rpmtag.h).
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;
const PROVIDENAME: u32 = 1047;
const INSTALLTID: u32 = 1128;
const POSTTRANS: u32 = 1152;
const POSTTRANSPROG: u32 = 1154;

/// Parses a header (lib/header.c): the number of entries and of bytes of data, the entries of 16
/// bytes (tag, type, offset, count), and the data; all big-endian.
fn header(bytes: &[u8]) -> Option<Installed> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let entries = usize::try_from(word(0)?).ok()?;
    if entries > MAX_TAGS {
        return None;
    }
    let data = bytes.get(8 + 16 * entries..)?;
    let mut places = BTreeMap::new();
    for index in 0..entries {
        let at = 8 + 16 * index;
        let place = (usize::try_from(word(at + 8)?).ok()?, word(at + 12)?);
        places.entry(word(at)?).or_insert(place);
    }
    let text = |tag: u32| {
        let (offset, _) = places.get(&tag)?;
        string(data.get(*offset..)?)
    };
    let number = |tag: u32| {
        let (offset, _) = places.get(&tag)?;
        let bytes = data.get(*offset..offset.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let name = text(NAME)?;
    let provides = || {
        let (offset, count) = places.get(&PROVIDENAME).copied().unwrap_or_default();
        let rest = data.get(offset..).unwrap_or_default();
        rest.split(|byte| *byte == 0)
            .take(usize::try_from(count).unwrap_or(0))
    };
    Some(Installed {
        arch: text(ARCH).unwrap_or_default(),
        epoch: number(EPOCH).unwrap_or(0),
        version: text(VERSION)?,
        release: text(RELEASE)?,
        transaction: number(INSTALLTID),
        install_only: is_install_only(&name, provides()),
        posttrans: places.contains_key(&POSTTRANS) || places.contains_key(&POSTTRANSPROG),
        name,
    })
}

fn string(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(bytes.get(..end)?).into_owned())
}

/// Whether several versions may be installed: dnf's `installonlypkgs` as shipped (dnf.conf(5):
/// kernel, kernel-PAE, installonlypkg(kernel), installonlypkg(kernel-module),
/// installonlypkg(vm), multiversion(kernel)), what SUSE's kernels provide, and the keys that
/// rpm keeps as packages.
fn is_install_only<'a>(name: &str, mut provides: impl Iterator<Item = &'a [u8]>) -> bool {
    ["gpg-pubkey", "kernel", "kernel-PAE"].contains(&name)
        || provides.any(|provided| {
            [b"installonlypkg(".as_slice(), b"multiversion("]
                .iter()
                .any(|prefix| provided.starts_with(prefix))
                || provided == b"kernel"
        })
}
