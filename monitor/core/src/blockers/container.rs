//! Which container a task runs in, by the path of its cgroup.
//!
//! | runtime | with systemd's cgroup driver | with cgroupfs |
//! |---|---|---|
//! | docker | `docker-ID.scope` | `/docker/ID` |
//! | containerd (Kubernetes, nerdctl) | `cri-containerd-ID.scope`, `nerdctl-ID.scope`, `…slice:cri-containerd:ID` | `/kubepods/…/podUID/ID` |
//! | CRI-O | `crio-ID.scope` | `…/crio-ID` |
//! | podman | `libpod-ID.scope`, `libpod-payload-ID` in a service's cgroup (`--cgroups=split`) | `/libpod_parent/libpod-ID` |
//! | LXC, LXD, Incus | `lxc.payload.NAME` | `/lxc/NAME`, `/lxc.payload/NAME` |
//! | systemd-nspawn | `machine-NAME.scope`, `systemd-nspawn@NAME.service` | |
//!
//! `docker-`, `crio-` and `libpod-conmon-` of the processes that accompany a container (conmon,
//! `lxc.monitor`) are not containers.

use std::fmt;

use serde::Serialize;

use super::escape::printable;

/// Digits of an id that are shown, as docker ps and crictl ps do.
const ID_SHOWN: usize = 12;
/// Digits of a container's id.
const ID_DIGITS: usize = 64;

/// A container, as far as a cgroup's path identifies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The container's runtime; `None` if its cgroup does not show it.
    pub runtime: Option<&'static str>,
    /// Its id, or its name if the runtime names cgroups after it.
    pub id: String,
}

/// Prefixes of a component whose rest is the container's id.
const PREFIXES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("libpod-payload-", "podman"),
    ("buildkit-", "docker"),
];

/// The parent of components that are ids.
const PARENTS: [(&str, &str); 3] = [("docker", "docker"), ("lxc", "lxc"), ("lxc.payload", "lxc")];

impl Container {
    /// The innermost container whose cgroup this path is in.
    #[must_use]
    pub fn of(cgroup_path: &str) -> Option<Self> {
        let components: Vec<&str> = cgroup_path.split('/').collect();
        (0..components.len()).rev().find_map(|at| {
            let component = components.get(at).copied()?;
            let parent = at.checked_sub(1).and_then(|at| components.get(at).copied());
            Self::of_component(component, parent)
        })
    }

    fn of_component(component: &str, parent: Option<&str>) -> Option<Self> {
        let some = |runtime, id: &str| {
            Some(Self {
                runtime: Some(runtime),
                id: id.to_owned(),
            })
        };
        let name = component.strip_suffix(".scope").unwrap_or(component);
        for (prefix, runtime) in PREFIXES {
            if let Some(id) = name.strip_prefix(prefix).filter(|id| is_id(id)) {
                return some(runtime, id);
            }
        }
        if let Some((_, id)) = name
            .rsplit_once(":cri-containerd:")
            .filter(|(_, id)| is_id(id))
        {
            return some("containerd", id);
        }
        if let Some(name) = name
            .strip_prefix("lxc.payload.")
            .filter(|name| !name.is_empty())
        {
            return some("lxc", name);
        }
        let machine = component
            .strip_prefix("machine-")
            .and_then(|rest| rest.strip_suffix(".scope"));
        let nspawn = component
            .strip_prefix("systemd-nspawn@")
            .and_then(|rest| rest.strip_suffix(".service"));
        // Virtual machines of libvirt are machines too: their names start with qemu.
        let is_vm = |name: &&str| name.starts_with("qemu\\x2d");
        if let Some(name) = machine.filter(|name| !is_vm(name)).or(nspawn) {
            return some("systemd-nspawn", name);
        }
        let by_parent = PARENTS.iter().find(|(name, _)| parent == Some(name));
        match by_parent {
            Some((_, "lxc")) if !component.is_empty() => some("lxc", component),
            Some((_, runtime)) if is_id(component) => some(runtime, component),
            // Kubernetes with cgroupfs: the path does not show the runtime.
            _ if is_id(component) => Some(Self {
                runtime: None,
                id: component.to_owned(),
            }),
            _ => None,
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Container {
    /// As `docker container 0123456789ab`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(runtime) = self.runtime {
            write!(f, "{runtime} ")?;
        }
        let id = match is_id(&self.id) {
            true => self.id.get(..ID_SHOWN).unwrap_or(&self.id),
            false => &self.id,
        };
        write!(f, "container {}", printable(id.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_every_runtime() {
        let id = "4f".repeat(32);
        let pod = "kubepods-burstable-pod8a5c2f0e_1b2c_4d5e_8f90_a1b2c3d4e5f6.slice";
        for (path, expected) in [
            (
                format!("/system.slice/docker-{id}.scope"),
                Some("docker container 4f4f4f4f4f4f"),
            ),
            (
                format!("/docker/{id}"),
                Some("docker container 4f4f4f4f4f4f"),
            ),
            (
                format!("/docker/{id}/init.scope"),
                Some("docker container 4f4f4f4f4f4f"),
            ),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/{pod}/cri-containerd-{id}.scope"),
                Some("containerd container 4f4f4f4f4f4f"),
            ),
            (
                format!("/system.slice/containerd.service/{pod}:cri-containerd:{id}"),
                Some("containerd container 4f4f4f4f4f4f"),
            ),
            (
                format!("/kubepods/burstable/pod8a5c2f0e/{id}"),
                Some("container 4f4f4f4f4f4f"),
            ),
            (
                format!("/kubepods.slice/{pod}/crio-{id}.scope/container"),
                Some("cri-o container 4f4f4f4f4f4f"),
            ),
            (
                format!("/kubepods/pod8a5c/crio-{id}"),
                Some("cri-o container 4f4f4f4f4f4f"),
            ),
            (
                format!("/machine.slice/libpod-{id}.scope/container"),
                Some("podman container 4f4f4f4f4f4f"),
            ),
            (
                format!("/libpod_parent/libpod-{id}"),
                Some("podman container 4f4f4f4f4f4f"),
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/".to_owned()
                    + &format!("libpod-{id}.scope"),
                Some("podman container 4f4f4f4f4f4f"),
            ),
            (
                format!("/system.slice/web.service/libpod-payload-{id}"),
                Some("podman container 4f4f4f4f4f4f"),
            ),
            (
                "/lxc.payload.web-1/system.slice/nginx.service".to_owned(),
                Some("lxc container web-1"),
            ),
            ("/lxc/web-1".to_owned(), Some("lxc container web-1")),
            (
                "/lxc.payload/web\u{1b}1/init.scope".to_owned(),
                Some("lxc container web\\x1b1"),
            ),
            (
                "/machine.slice/machine-deb.scope".to_owned(),
                Some("systemd-nspawn container deb"),
            ),
            (
                "/machine.slice/systemd-nspawn@deb.service/payload/init.scope".to_owned(),
                Some("systemd-nspawn container deb"),
            ),
            // A container in a container: the inner one.
            (
                format!("/lxc.payload.ci/docker/{id}"),
                Some("docker container 4f4f4f4f4f4f"),
            ),
            // A process that accompanies a container, or has none.
            (format!("/machine.slice/libpod-conmon-{id}.scope"), None),
            (format!("/kubepods/crio-conmon-{id}.scope"), None),
            ("/lxc.monitor.web-1".to_owned(), None),
            ("/system.slice/docker.service".to_owned(), None),
            (
                "/machine.slice/machine-qemu\\x2d1\\x2ddeb.scope".to_owned(),
                None,
            ),
            ("/docker/buildx".to_owned(), None),
            ("/lxc/".to_owned(), None),
            (
                "/user.slice/user-1000.slice/session-3.scope".to_owned(),
                None,
            ),
            ("/".to_owned(), None),
            (String::new(), None),
        ] {
            let found = Container::of(&path).map(|container| container.to_string());
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }
}
