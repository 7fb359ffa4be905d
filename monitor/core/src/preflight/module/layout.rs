//! Where the members of livepatch's structures lie.

/// Offsets and sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KlpLayout {
    /// `klp_patch.mod`.
    pub patch_mod: u64,
    /// `klp_patch.objs`.
    pub patch_objs: u64,
    /// `klp_patch.replace`.
    pub patch_replace: u64,
    /// `klp_object.name`.
    pub object_name: u64,
    /// `klp_object.funcs`.
    pub object_funcs: u64,
    /// `struct klp_object`.
    pub object_size: u64,
    /// `klp_func.old_name`.
    pub func_old_name: u64,
    /// `klp_func.new_func`.
    pub func_new_func: u64,
    /// `klp_func.old_sympos`.
    pub func_old_sympos: u64,
    /// `struct klp_func`.
    pub func_size: u64,
    /// `module.name`.
    pub module_name: u64,
}

impl KlpLayout {
    /// That of 5.10 to 7.2 on 64 bits (include/linux/livepatch.h, include/linux/module.h).
    pub const KNOWN: Self = Self {
        patch_mod: 0,
        patch_objs: 8,
        patch_replace: 24,
        object_name: 0,
        object_funcs: 8,
        object_size: 168,
        func_old_name: 0,
        func_new_func: 8,
        func_old_sympos: 16,
        func_size: 152,
        module_name: 24,
    };
}
