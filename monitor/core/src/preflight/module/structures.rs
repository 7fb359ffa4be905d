//! Finds the functions that a module replaces: in the structures that the kernel reads, or
//! in those from which the code of kpatch-build and klp-build builds them.

use std::collections::BTreeMap;

use object::{ObjectSection as _, SectionIndex};

use super::{
    Function, Image, KlpLayout, MAX_FUNCTIONS, ModuleError, Object, Source, Target, is_module_name,
};
use crate::patch::VMLINUX;

/// `struct kpatch_patch_func` (kpatch-build, kmod/patch/kpatch-patch.h): new_addr,
/// new_size, old_addr, old_size, sympos, name, objname.
pub(super) const KPATCH_FUNCS: &str = ".kpatch.funcs";
const KPATCH_FUNC_SIZE: u64 = 56;
const KPATCH_SYMPOS: u64 = 32;
const KPATCH_NAME: u64 = 40;
const KPATCH_OBJECT: u64 = 48;

/// `struct klp_object_ext` and `klp_func_ext` (include/linux/livepatch_external.h):
/// name, funcs, five callbacks, nr_funcs; old_name, new_func, sympos.
pub(super) const KLP_BUILD: [(&str, &str); 2] = [
    ("__klp_objects", "__klp_funcs"),
    (".init.klp_objects", ".init.klp_funcs"),
];
const EXT_OBJECT_SIZE: u64 = 64;
const EXT_FUNCS: u64 = 8;
const EXT_COUNT: u64 = 56;
const EXT_FUNC_SIZE: u64 = 24;
const EXT_NEW_FUNC: u64 = 8;
const EXT_SYMPOS: u64 = 16;

/// Most functions examined while searching for patches, which bounds the time for data
/// that only looks like many patches.
const MAX_LOOKED_AT: usize = 1 << 20;

/// The result of the search.
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) replace: Option<bool>,
    pub(super) objects: Vec<Object>,
}

/// Functions grouped by object, in file order within each.
type ByObject = BTreeMap<String, Vec<Function>>;

pub(super) fn find(image: &Image<'_>, layout: &KlpLayout) -> Result<Found, ModuleError> {
    let found = |source, replace, objects: ByObject| Found {
        source,
        replace,
        objects: objects
            .into_iter()
            .map(|(name, functions)| Object { name, functions })
            .collect(),
    };
    if let Some(section) = image.section(KPATCH_FUNCS) {
        let objects = kpatch(image, section.index(), section.size())?;
        return Ok(found(Source::KpatchBuild, None, objects));
    }
    for (name, _) in KLP_BUILD {
        if let Some(section) = image.section(name) {
            let objects = klp_build(image, section.index(), section.size())?;
            return Ok(found(Source::KlpBuild, None, objects));
        }
    }
    let mut patches = klp_patches(image, layout)?.into_iter();
    let Some((replace, mut objects)) = patches.next() else {
        return Ok(found(Source::Nowhere, None, ByObject::new()));
    };
    let mut replace = Some(replace);
    // If there are several, it is unknown which of them the code enables: expect all.
    for (other, functions) in patches {
        replace = replace.filter(|replace| *replace == other);
        for (object, functions) in functions {
            objects.entry(object).or_default().extend(functions);
        }
    }
    Ok(found(Source::KlpPatch, replace, objects))
}

fn damaged(
    image: &Image<'_>,
    section: SectionIndex,
    offset: u64,
    what: &'static str,
) -> ModuleError {
    ModuleError::Damaged {
        section: image.name_of(section),
        offset,
        what,
    }
}

fn add(objects: &mut ByObject, object: &str, function: Function) -> Result<(), ModuleError> {
    let functions = objects.entry(object.to_owned()).or_default();
    if functions.len() >= MAX_FUNCTIONS {
        return Err(ModuleError::TooMany {
            what: "functions",
            limit: MAX_FUNCTIONS,
        });
    }
    functions.push(function);
    Ok(())
}

fn kpatch(image: &Image<'_>, section: SectionIndex, size: u64) -> Result<ByObject, ModuleError> {
    let mut objects = ByObject::new();
    if !size.is_multiple_of(KPATCH_FUNC_SIZE) {
        let what = "its size is not a multiple of a function's 56 bytes (built by a kpatch-build before 0.3.3?)";
        return Err(damaged(image, section, size, what));
    }
    for base in steps(size, KPATCH_FUNC_SIZE) {
        let string = |offset| image.string(image.pointer(section, base + offset)?);
        let function = || {
            let object = string(KPATCH_OBJECT).filter(|name| is_module_name(name))?;
            let name = string(KPATCH_NAME)?;
            let sympos = image.number(section, base + KPATCH_SYMPOS)?;
            Some((object, Function { name, sympos }))
        };
        let (object, function) = function()
            .ok_or_else(|| damaged(image, section, base, "a function without name or object"))?;
        add(&mut objects, &object, function)?;
    }
    Ok(objects)
}

fn klp_build(image: &Image<'_>, section: SectionIndex, size: u64) -> Result<ByObject, ModuleError> {
    let mut objects = ByObject::new();
    if !size.is_multiple_of(EXT_OBJECT_SIZE) {
        let what = "its size is not a multiple of an object's 64 bytes";
        return Err(damaged(image, section, size, what));
    }
    for base in steps(size, EXT_OBJECT_SIZE) {
        let wrong = |what| damaged(image, section, base, what);
        let object = object_name(image, image.pointer(section, base))
            .ok_or_else(|| wrong("an object has an invalid name"))?;
        let count = image.short_number(section, base + EXT_COUNT);
        let count = count.ok_or_else(|| wrong("it ends within an object"))?;
        let funcs = image.pointer(section, base + EXT_FUNCS);
        objects.entry(object.clone()).or_default();
        for number in 0..u64::from(count) {
            let Some(Target::Here(section, start)) = funcs else {
                return Err(wrong("an object without functions"));
            };
            let at = number
                .checked_mul(EXT_FUNC_SIZE)
                .and_then(|offset| start.checked_add(offset));
            let function = at.and_then(|at| {
                image.pointer(section, at.checked_add(EXT_NEW_FUNC)?)?;
                Some(Function {
                    name: image.string(image.pointer(section, at)?)?,
                    sympos: image.number(section, at.checked_add(EXT_SYMPOS)?)?,
                })
            });
            let function = function.ok_or_else(|| wrong("a function of this object is invalid"))?;
            add(&mut objects, &object, function)?;
        }
    }
    Ok(objects)
}

fn steps(size: u64, step: u64) -> impl Iterator<Item = u64> {
    (0..size / step).map(move |number| number * step)
}

/// Name of an object; a missing name means the kernel itself.
fn object_name(image: &Image<'_>, name: Option<Target>) -> Option<String> {
    match name {
        None => Some(VMLINUX.to_owned()),
        Some(target) => image.string(target).filter(|name| is_module_name(name)),
    }
}

/// Finds every `struct klp_patch` in the data: it starts with a pointer to the module
/// itself, followed by one to objects, and all structures below it must be valid.
fn klp_patches(
    image: &Image<'_>,
    layout: &KlpLayout,
) -> Result<Vec<(bool, ByObject)>, ModuleError> {
    let Some(this_module) = image.section(".gnu.linkonce.this_module") else {
        return Err(ModuleError::NoSection(".gnu.linkonce.this_module"));
    };
    let this_module = Target::Here(this_module.index(), 0);
    let mut candidates: Vec<(SectionIndex, u64)> = image
        .pointers
        .iter()
        .filter(|(_, target)| **target == this_module)
        .map(|(place, _)| *place)
        .collect();
    candidates.sort_unstable_by_key(|(section, at)| (section.0, *at));
    let mut budget = MAX_LOOKED_AT;
    let mut patches = Vec::new();
    for (section, at) in candidates {
        let Some(base) = at.checked_sub(layout.patch_mod) else {
            continue;
        };
        if let Some(patch) = klp_patch(image, layout, section, base, &mut budget) {
            patches.push(patch);
        }
        if budget == 0 {
            return Err(ModuleError::TooMany {
                what: "functions",
                limit: MAX_LOOKED_AT,
            });
        }
    }
    Ok(patches)
}

fn klp_patch(
    image: &Image<'_>,
    layout: &KlpLayout,
    section: SectionIndex,
    base: u64,
    budget: &mut usize,
) -> Option<(bool, ByObject)> {
    let Target::Here(list, mut at) =
        image.pointer(section, base.checked_add(layout.patch_objs)?)?
    else {
        return None;
    };
    let [replace] = image.bytes(section, base.checked_add(layout.patch_replace)?)?;
    let mut objects = ByObject::new();
    loop {
        *budget = budget.checked_sub(1)?;
        let name = image.pointer(list, at.checked_add(layout.object_name)?);
        let funcs = image.pointer(list, at.checked_add(layout.object_funcs)?);
        // klp_for_each_object_static: `obj->funcs || obj->name`. The terminator must exist.
        let end = at.checked_add(layout.object_size)?;
        image.bytes::<1>(list, end.checked_sub(1)?)?;
        match (name, funcs) {
            (None, None) => break,
            (name, Some(Target::Here(section, start))) => {
                let object = object_name(image, name)?;
                let functions = klp_funcs(image, layout, section, start, budget)?;
                objects.entry(object).or_default().extend(functions);
            }
            _ => return None,
        }
        at = end;
    }
    (!objects.is_empty()).then_some((replace != 0, objects))
}

fn klp_funcs(
    image: &Image<'_>,
    layout: &KlpLayout,
    section: SectionIndex,
    mut at: u64,
    budget: &mut usize,
) -> Option<Vec<Function>> {
    let mut functions = Vec::new();
    loop {
        *budget = budget.checked_sub(1)?;
        let name = image.pointer(section, at.checked_add(layout.func_old_name)?);
        let new = image.pointer(section, at.checked_add(layout.func_new_func)?);
        let sympos = image.number(section, at.checked_add(layout.func_old_sympos)?)?;
        let end = at.checked_add(layout.func_size)?;
        image.bytes::<1>(section, end.checked_sub(1)?)?;
        // klp_for_each_func_static: `func->old_name || func->new_func || func->old_sympos`.
        match (name, new) {
            (None, None) if sympos == 0 => return Some(functions),
            (Some(name), Some(new)) if is_code(image, new) => {
                let name = image.string(name)?;
                functions.push(Function { name, sympos });
            }
            _ => return None,
        }
        at = end;
    }
}

fn is_code(image: &Image<'_>, target: Target) -> bool {
    match target {
        Target::Here(section, _) => image.is_code(section),
        Target::Elsewhere => true,
    }
}
