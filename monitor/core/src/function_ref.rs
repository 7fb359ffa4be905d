//! A function in an object of a livepatch, and a place in a function.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::patch::VMLINUX;

/// A function, and the object that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionRef {
    /// [`VMLINUX`] for the kernel image, otherwise the module's name.
    pub object: String,
    /// The function's name as in the kernel's symbol table.
    pub function: String,
}

/// The module that an object is; `None` for the kernel image.
#[must_use]
pub fn module_of(object: &str) -> Option<&str> {
    (object != VMLINUX).then_some(object)
}

impl FunctionRef {
    /// The function of this name in a module, or in the kernel image if `None`.
    #[must_use]
    pub fn in_module(module: Option<&str>, function: &str) -> Self {
        Self {
            object: module.unwrap_or(VMLINUX).to_owned(),
            function: function.to_owned(),
        }
    }

    /// The module that holds the function; `None` for the kernel image.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        module_of(&self.object)
    }

    /// Whether a symbol that the kernel printed as `function` or `function [module]` is
    /// this function.
    #[must_use]
    pub fn is_symbol(&self, function: &str, module: Option<&str>) -> bool {
        self.function == function && self.module() == module
    }
}

/// A place in the kernel's code, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodePlace {
    /// The function's name; a bare address if the kernel has no name for it.
    pub name: String,
    /// Bytes from the function's start.
    pub offset: Option<u64>,
    /// The function's length in bytes.
    pub size: Option<u64>,
    /// The module it is in; `None` for the kernel image.
    pub module: Option<String>,
}

impl fmt::Display for CodePlace {
    /// As the kernel writes it: `schedule+0x5a/0xd0 [module]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(offset) = self.offset {
            write!(f, "+{offset:#x}")?;
            if let Some(size) = self.size {
                write!(f, "/{size:#x}")?;
            }
        }
        match &self.module {
            Some(module) => write!(f, " [{module}]"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::FunctionRef;

    #[test]
    fn a_module_s_function_is_not_the_kernel_s() {
        let function = |object: &str| FunctionRef {
            object: object.into(),
            function: "hold".into(),
        };
        assert!(function("vmlinux").is_symbol("hold", None));
        assert!(!function("vmlinux").is_symbol("hold", Some("vmlinux")));
        assert!(function("lp_target").is_symbol("hold", Some("lp_target")));
        assert!(!function("lp_target").is_symbol("hold", None));
        assert!(!function("lp_target").is_symbol("holds", Some("lp_target")));
    }
}
