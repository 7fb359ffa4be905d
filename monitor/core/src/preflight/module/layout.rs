//! Offsets of the members of livepatch's structures.

/// Offsets of members and sizes of structures, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KlpLayout {
    /// Offset of `klp_patch.mod` in bytes.
    pub patch_mod: u64,
    /// Offset of `klp_patch.objs` in bytes.
    pub patch_objs: u64,
    /// Offset of `klp_patch.replace` in bytes.
    pub patch_replace: u64,
    /// Offset of `klp_object.name` in bytes.
    pub object_name: u64,
    /// Offset of `klp_object.funcs` in bytes.
    pub object_funcs: u64,
    /// Size of `struct klp_object`.
    pub object_size: u64,
    /// Offset of `klp_func.old_name` in bytes.
    pub func_old_name: u64,
    /// Offset of `klp_func.new_func` in bytes.
    pub func_new_func: u64,
    /// Offset of `klp_func.old_sympos` in bytes.
    pub func_old_sympos: u64,
    /// Size of `struct klp_func`.
    pub func_size: u64,
    /// Offset of `module.name` in bytes.
    pub module_name: u64,
}

impl KlpLayout {
    /// The layout of 64-bit kernels 5.10 to 7.2 (include/linux/livepatch.h,
    /// include/linux/module.h).
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
