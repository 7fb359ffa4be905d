//! The version of the kernel that runs, for what differs between kernels.

use anyhow::{Result, bail};

use crate::files;

/// What `uname -r` prints.
pub(crate) fn release() -> Result<String> {
    Ok(files::read("/proc/sys/kernel/osrelease")?.trim().to_owned())
}

/// Whether it is this version or a later one.
pub(crate) fn is_since(major: u32, minor: u32) -> Result<bool> {
    Ok(version(&release()?)? >= (major, minor))
}

/// The first two numbers of a release.
fn version(release: &str) -> Result<(u32, u32)> {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        bail!("the kernel's release is `{release}`, which does not begin with a version");
    };
    Ok((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("5.10.0-35-cloud-amd64").unwrap(), (5, 10));
        assert!(version("6.12.95+deb12-cloud-amd64").unwrap() >= (6, 5));
        assert!(version("7.2-rc1").unwrap() >= (6, 14));
        assert!(version("6").is_err() && version("unknown").is_err());
    }
}
