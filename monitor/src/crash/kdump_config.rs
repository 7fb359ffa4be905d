//! Finds where kdump writes its dumps, from the configuration of the distribution's tools:
//! kdump.conf(5) of RHEL's kexec-tools and its descendants, /etc/default/kdump-tools of Debian and
//! Ubuntu, kdump(5) of SUSE. Also whether systemd-pstore keeps files at all.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::bounded_read;

#[cfg(test)]
mod tests;

const KDUMP_CONF: &str = "etc/kdump.conf";
const KDUMP_TOOLS: &str = "etc/default/kdump-tools";
const SYSCONFIG: &str = "etc/sysconfig/kdump";
/// systemd-pstore's configuration (pstore.conf(5)), relative to the root.
const PSTORE_CONF: &str = "etc/systemd/pstore.conf";
const MAX_FILE: u64 = 256 << 10;
/// The default directory of all of them.
const DEFAULT: &str = "/var/crash";

/// Destinations of the dumps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Directories of this host, relative to the root.
    pub local: Vec<PathBuf>,
    /// Destinations that are not searched, in words.
    pub elsewhere: Vec<String>,
    /// What happens to pstore's records, if they are not moved to files.
    pub pstore: Option<String>,
    /// What is wrong with the configuration.
    pub problems: Vec<String>,
}

impl Targets {
    /// The files of the configuration, below the root.
    pub const FILES: [&str; 4] = [KDUMP_CONF, KDUMP_TOOLS, SYSCONFIG, PSTORE_CONF];

    /// Reads the configuration of a host whose root is given.
    #[must_use]
    pub fn read(rootfs: &Path) -> Self {
        let mut targets = Self::default();
        let parsers: [fn(&mut Self, &str); 4] = [
            Self::kdump_conf,
            Self::kdump_tools,
            Self::sysconfig,
            Self::pstore_conf,
        ];
        for (file, parse) in Self::FILES.into_iter().zip(parsers) {
            let path = rootfs.join(file);
            match bounded_read::read_text(&path, MAX_FILE) {
                Ok(text) => parse(&mut targets, &text),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => targets.problems.push(format!(
                    "cannot read {}: {error}; cannot determine where dumps are written",
                    path.display()
                )),
            }
        }
        targets
    }

    /// Parses lines `KEYWORD VALUE`; the path is one on the target's file system.
    fn kdump_conf(&mut self, text: &str) {
        let mut path = DEFAULT;
        let mut target = None;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            match key {
                "path" => path = value,
                "nfs" | "nfs4" | "ssh" | "net" | "raw" | "ext2" | "ext3" | "ext4" | "xfs"
                | "btrfs" | "minix" | "virtiofs" => target = Some((key, value)),
                _ => {}
            }
        }
        match target {
            None => self.local(path, KDUMP_CONF),
            Some(("raw", device)) => self.elsewhere.push(format!(
                "the raw device {device} (/{KDUMP_CONF}), from which makedumpfile -R reads them"
            )),
            Some((kind, place)) => {
                let place = format!("{kind} {place}, directory {path} (/{KDUMP_CONF})");
                self.elsewhere.push(place);
            }
        }
    }

    fn kdump_tools(&mut self, text: &str) {
        let directory = variable(text, "KDUMP_COREDIR").unwrap_or(DEFAULT);
        let remote = ["NFS", "SSH", "FTP"];
        let remote = remote.map(|key| Some((key, variable(text, key)?)));
        let mut remote = remote.into_iter().flatten().peekable();
        if remote.peek().is_none() {
            self.local(directory, KDUMP_TOOLS);
        }
        for (kind, place) in remote {
            let kind = kind.to_lowercase();
            let place = match kind.as_str() {
                "ssh" => format!("{kind} {place}, directory {directory}"),
                _ => format!("{kind} {place}"),
            };
            self.elsewhere.push(format!("{place} (/{KDUMP_TOOLS})"));
        }
    }

    /// Parses one or more URLs; without a scheme it is a directory.
    fn sysconfig(&mut self, text: &str) {
        let Some(places) = variable(text, "KDUMP_SAVEDIR") else {
            return;
        };
        for place in places.split_whitespace() {
            match place.split_once("://") {
                None => self.local(place, SYSCONFIG),
                Some(("file", path)) => self.local(path, SYSCONFIG),
                Some(_) => {
                    let place = format!("{} (/{SYSCONFIG})", without_password(place));
                    self.elsewhere.push(place);
                }
            }
        }
    }

    /// `Storage=` is `external` (files, the default), `journal` or `none`.
    fn pstore_conf(&mut self, text: &str) {
        self.pstore = match variable(text, "Storage") {
            Some("journal") => Some(format!(
                "systemd-pstore puts pstore's records into the journal (/{PSTORE_CONF}): see \
                 journalctl -u systemd-pstore"
            )),
            _ => None,
        };
    }

    fn local(&mut self, path: &str, file: &str) {
        let path = PathBuf::from(path);
        if !path.is_absolute() {
            self.problems.push(format!(
                "/{file}: {path:?} is not an absolute path; cannot determine where kdump writes its dumps"
            ));
        } else if !self.local.contains(&path) {
            self.local.push(path);
        }
    }
}

/// `ftp://USER:PASSWORD@HOST/PATH` without the password, because it is printed.
fn without_password(url: &str) -> String {
    let shorter = || {
        let (scheme, rest) = url.split_once("://")?;
        let (user, host) = rest.rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}@{host}"))
    };
    shorter().unwrap_or_else(|| url.to_owned())
}

/// The value of a shell variable, the last one that is set; `None` if it is empty.
fn variable<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let value = line.strip_prefix(key)?.strip_prefix('=')?;
        let quoted = |quote: char| value.strip_prefix(quote)?.split(quote).next();
        let plain = || value.split([' ', '\t', '#', ';']).next();
        quoted('"').or_else(|| quoted('\'')).or_else(plain)
    };
    let last = text.lines().filter_map(value).next_back()?;
    (!last.is_empty()).then_some(last)
}
