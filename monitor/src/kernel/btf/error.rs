use std::io;
use std::path::PathBuf;

/// Why type information could not be read, or does not contain what was requested.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file could not be read.
    #[error(
        "cannot read the kernel's type information {}: {source}; the kernel must be built with CONFIG_DEBUG_INFO_BTF",
        path.display()
    )]
    Read {
        /// The file that could not be read.
        path: PathBuf,
        /// What the system reported.
        source: io::Error,
    },
    /// The blob violates the format.
    #[error("malformed BTF at byte {offset}: {what}")]
    Malformed {
        /// The offset in the blob, in bytes.
        offset: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A kind of type that this reader does not know and whose size the blob does not state.
    #[error("BTF type {id} is of kind {kind}, which this version cannot skip; a newer version may")]
    UnknownKind {
        /// The type's number in the blob, from 1.
        id: u32,
        /// The number of its kind (`BTF_KIND_*`).
        kind: u32,
    },
    /// No structure or union has this name.
    #[error("this kernel's BTF has no struct or union {name}")]
    NoStruct {
        /// Name of the structure that was looked up.
        name: String,
    },
    /// The structure has no such member.
    #[error("struct {name} of this kernel's BTF has no member {member}")]
    NoMember {
        /// Name of the structure that was looked up.
        name: String,
        /// The member, including the path to it.
        member: String,
    },
    /// A path goes through a member that has no members.
    #[error("member {member} of struct {name} is neither a struct nor a union")]
    NotAStruct {
        /// Name of the structure that was looked up.
        name: String,
        /// The member, including the path to it.
        member: String,
    },
    /// The member is a bit field and has no byte offset.
    #[error("member {member} of struct {name} is a bit field")]
    BitField {
        /// Name of the structure that was looked up.
        name: String,
        /// The member, including the path to it.
        member: String,
    },
    /// Several structures have this name, with the member at different offsets.
    #[error(
        "member {member} lies at byte {first} of one struct {name} and at byte {second} of another"
    )]
    Ambiguous {
        /// Name of the structure that was looked up.
        name: String,
        /// The member, including the path to it.
        member: String,
        /// Offset in one of them.
        first: u32,
        /// Offset of the member in another one, in bytes.
        second: u32,
    },
}
