//! The package managers, and the moments in which they are killed.

/// How a manager's packages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Deb,
    Rpm,
}

/// A moment in which a manager is killed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// What the hook is called with: script, package, its version, and with dpkg its argument.
    pub(super) hook: &'static str,
    /// The command, if it is not the upgrade.
    pub(super) command: Option<&'static str>,
    /// It is part of a run without `--thorough`.
    pub(super) always: bool,
}

const fn moment(hook: &'static str) -> Moment {
    Moment {
        hook,
        command: None,
        always: false,
    }
}

const fn always(hook: &'static str) -> Moment {
    Moment {
        hook,
        command: None,
        always: true,
    }
}

/// A package manager.
#[derive(Debug)]
pub(super) struct Manager {
    /// The value of the label.
    pub(super) name: &'static str,
    /// Debian's suite that has it.
    pub(super) suite: &'static str,
    /// Debian's packages.
    pub(super) packages: &'static [&'static str],
    pub(super) format: Format,
    /// Installs the packages, version 1.
    pub(super) install: &'static [&'static str],
    pub(super) upgrade: &'static str,
    pub(super) moments: &'static [Moment],
    /// Where the files of version 2 are.
    pub(super) files: &'static str,
    /// Its history says which packages a transaction was to change.
    pub(super) has_history: bool,
    /// What it leaves says that a script for the end of the transaction did not run.
    pub(super) knows_posttrans: bool,
}

const RPM_PACKAGES: &[&str] = &["dnf", "zypper", "rpm", "createrepo-c"];

/// What a removal leaves is known where a history has it.
const DNF_REMOVAL: &str = "dnf -q -y remove --noautoremove lp-a lp-b lp-c";
const DNF5_REMOVAL: &str = "dnf5 -q -y remove --no-autoremove lp-a lp-b lp-c";

const fn with_removals(command: &'static str) -> [Moment; 8] {
    let [pretrans, pre, post, preun, postun, posttrans] = RPM_MOMENTS;
    [
        pretrans,
        pre,
        post,
        preun,
        postun,
        posttrans,
        // One of the two comes before the other: then nothing, or two packages are gone.
        removal("preun a 1", command),
        removal("preun c 1", command),
    ]
}

const RPM_MOMENTS: [Moment; 6] = [
    moment("pretrans b 2"),
    moment("pre b 2"),
    always("post b 2"),
    moment("preun b 1"),
    moment("postun b 1"),
    always("posttrans b 2"),
];

pub(super) const MANAGERS: [Manager; 5] = [
    Manager {
        name: "dpkg",
        suite: "bookworm",
        packages: RPM_PACKAGES,
        format: Format::Deb,
        install: &[
            "apt-get --quiet --quiet update",
            "apt-get --quiet --quiet --yes install lp-a=1 lp-b=1 lp-c=1",
        ],
        upgrade: "apt-get --quiet --quiet --yes dist-upgrade",
        moments: &[
            moment("prerm b 1 upgrade"),
            always("preinst b 2 upgrade"),
            moment("postrm b 1 upgrade"),
            always("postinst b 2 configure"),
            removal("prerm b 1 remove", "apt-get --yes remove lp-b"),
            removal("postrm b 1 remove", "apt-get --yes remove lp-b"),
            removal("postrm b 1 purge", "apt-get --yes purge lp-b"),
        ],
        files: "/repository",
        has_history: true,
        knows_posttrans: false,
    },
    Manager {
        name: "dnf",
        suite: "bookworm",
        packages: RPM_PACKAGES,
        format: Format::Rpm,
        install: &["dnf -q -y --releasever=1 --disablerepo=r2 install lp-a lp-b lp-c"],
        upgrade: "dnf -q -y upgrade",
        moments: &with_removals(DNF_REMOVAL),
        files: "/r2",
        has_history: true,
        knows_posttrans: true,
    },
    Manager {
        name: "dnf5",
        suite: "sid",
        packages: &["dnf5", "rpm", "createrepo-c"],
        format: Format::Rpm,
        install: &["dnf5 -q -y --disablerepo=r2 install lp-a lp-b lp-c"],
        upgrade: "dnf5 -q -y upgrade",
        moments: &with_removals(DNF5_REMOVAL),
        files: "/r2",
        has_history: true,
        knows_posttrans: true,
    },
    Manager {
        name: "zypper",
        suite: "bookworm",
        packages: RPM_PACKAGES,
        format: Format::Rpm,
        install: &[
            "zypper --non-interactive addrepo -G dir:/r1 r1",
            "zypper --non-interactive --no-gpg-checks install lp-a lp-b lp-c",
            "zypper --non-interactive addrepo -G dir:/r2 r2",
        ],
        upgrade: "zypper --non-interactive --no-gpg-checks update",
        moments: &RPM_MOMENTS,
        files: "/r2",
        has_history: false,
        knows_posttrans: true,
    },
    Manager {
        name: "rpm",
        suite: "bookworm",
        packages: RPM_PACKAGES,
        format: Format::Rpm,
        install: &[
            "rpm --install /r1/lp-a-1-1.noarch.rpm /r1/lp-b-1-1.noarch.rpm /r1/lp-c-1-1.noarch.rpm",
        ],
        upgrade: "rpm --upgrade /r2/lp-a-2-1.noarch.rpm /r2/lp-b-2-1.noarch.rpm /r2/lp-c-2-1.noarch.rpm",
        moments: &RPM_MOMENTS,
        files: "/r2",
        has_history: false,
        knows_posttrans: false,
    },
];

const fn removal(hook: &'static str, command: &'static str) -> Moment {
    Moment {
        hook,
        command: Some(command),
        always: false,
    }
}
