//! lp-a, lp-b and lp-c in two versions, whose scripts call the hook, and their repository.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{
    manager::{Format, Manager},
    tree::Tree,
};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
const VERSIONS: [u32; 2] = [1, 2];

/// Makes the packages in the tree.
pub(super) fn make(tree: &Tree, manager: &Manager) -> Result<()> {
    match manager.format {
        Format::Deb => debs(tree),
        Format::Rpm => rpms(tree),
    }
}

fn debs(tree: &Tree) -> Result<()> {
    let mut index = String::new();
    for version in VERSIONS {
        for name in NAMES {
            let folder = format!("build/{name}{version}");
            let control = format!(
                "Package: lp-{name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: a test\n"
            );
            tree.write(&format!("{folder}/DEBIAN/control"), &control)?;
            tree.write(
                &format!("{folder}/usr/share/lp/{name}"),
                &format!("{version}\n"),
            )?;
            // With a configuration file there is something to purge.
            tree.write(&format!("{folder}/etc/lp-{name}"), &format!("{version}\n"))?;
            tree.write(
                &format!("{folder}/DEBIAN/conffiles"),
                &format!("/etc/lp-{name}\n"),
            )?;
            for script in ["preinst", "postinst", "prerm", "postrm"] {
                let text = format!(
                    "#!/bin/sh\nH=\"{script} {name} {version} $1\"\n[ -e /hook ] && . /hook || :\n"
                );
                tree.write(&format!("{folder}/DEBIAN/{script}"), &text)?;
            }
            let file = format!("lp-{name}_{version}_all.deb");
            tree.run(&format!(
                "chmod 755 /{folder}/DEBIAN/p* && mkdir -p /repository && dpkg-deb --build /{folder} /repository/{file}"
            ))?;
            let sum = tree.output(&format!("sha256sum /repository/{file}"))?;
            let sum = sum.split_whitespace().next().context("no checksum")?;
            let size = tree
                .path(&format!("repository/{file}"))
                .metadata()
                .context("no package")?
                .len();
            let _ = writeln!(
                index,
                "{control}Filename: ./{file}\nSize: {size}\nSHA256: {sum}\n"
            );
        }
    }
    tree.write("repository/Packages", &index)?;
    tree.run("rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*")?;
    tree.write(
        "etc/apt/sources.list",
        "deb [trusted=yes] file:/repository ./\n",
    )
}

fn rpms(tree: &Tree) -> Result<()> {
    // rpm 6 gives scripts a separate mount namespace, which does not work with chroot.
    tree.write(
        "etc/rpm/macros",
        "%_dbpath /usr/lib/sysimage/rpm\n%__transaction_unshare %{nil}\n",
    )?;
    // libzypp and the versions of rpm disagree about the place.
    tree.run("mkdir -p /usr/lib/sysimage/rpm /r1 /r2 && rm -rf /var/lib/rpm && ln -s ../../usr/lib/sysimage/rpm /var/lib/rpm && rpm --initdb")?;
    // Scripts need a shell, and Debian's is not from an rpm.
    let shell = "Name: lp-shell\nVersion: 1\nRelease: 1\nSummary: a test\nLicense: MIT\nBuildArch: noarch\nProvides: /bin/sh\n%description\na test\n%files\n";
    build(tree, "shell", 1, shell)?;
    for version in VERSIONS {
        for name in NAMES {
            build(tree, name, version, &spec(name, version))?;
        }
        tree.run(&format!("createrepo_c -q /r{version}"))?;
    }
    let mut repositories = String::new();
    for version in VERSIONS {
        let _ = writeln!(
            repositories,
            "[r{version}]\nname=r{version}\nbaseurl=file:///r{version}\nenabled=1\ngpgcheck=0\nmetadata_expire=0"
        );
    }
    tree.write("etc/yum.repos.d/lp.repo", &repositories)?;
    tree.run("rpm --install /r1/lp-shell-1-1.noarch.rpm")
}

fn spec(name: &str, version: u32) -> String {
    let mut text = format!(
        "Name: lp-{name}\nVersion: {version}\nRelease: 1\nSummary: a test\nLicense: MIT\nBuildArch: noarch\n%description\na test\n%install\nmkdir -p %{{buildroot}}/usr/share/lp\necho {version} > %{{buildroot}}/usr/share/lp/{name}\n%files\n/usr/share/lp/{name}\n"
    );
    for script in ["pretrans", "pre", "post", "preun", "postun", "posttrans"] {
        let _ = writeln!(
            text,
            "%{script}\nH=\"{script} {name} {version}\"; [ -e /hook ] && . /hook || :"
        );
    }
    text
}

fn build(tree: &Tree, name: &str, version: u32, spec: &str) -> Result<()> {
    let file = format!("build/{name}{version}.spec");
    tree.write(&file, spec)?;
    tree.run(&format!(
        "rpmbuild --quiet --define '_rpmdir /r{version}' --define '_build_name_fmt %%{{NAME}}-%%{{VERSION}}-%%{{RELEASE}}.%%{{ARCH}}.rpm' -bb /{file}"
    ))
}
