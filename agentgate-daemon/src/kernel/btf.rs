//! Where the running kernel keeps what the programs of the layers read of its own structures.
//!
//! A reader of BTF (Documentation/bpf/btf.rst) for a handful of fields: aya keeps its own reader of
//! structures to itself. The kernel wrote the file, so a surprise in it is an error and nothing more.

use std::{fs, io, path::Path};

use agentgate_common::names;

/// The running kernel's types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// `BTF_MAGIC` of include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;
/// Types within types that are followed.
const DEPTH: usize = 16;

/// Offsets in bytes, by the names of [`agentgate_common::names::SOCKET_SK`] and its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SocketLayout {
    pub(super) socket_sk: u32,
    pub(super) socket_file: u32,
    pub(super) sock_family: u32,
    pub(super) sock_owned: u32,
    pub(super) sock_allocation: u32,
    pub(super) sock_kernel: u32,
    pub(super) sock_kernel_bit: u32,
}

impl SocketLayout {
    /// Each offset with the name of the global that holds it.
    pub(super) fn globals(&self) -> [(&'static str, &u32); 7] {
        [
            (names::SOCKET_SK, &self.socket_sk),
            (names::SOCKET_FILE, &self.socket_file),
            (names::SOCK_FAMILY, &self.sock_family),
            (names::SOCK_OWNED, &self.sock_owned),
            (names::SOCK_ALLOCATION, &self.sock_allocation),
            (names::SOCK_KERNEL, &self.sock_kernel),
            (names::SOCK_KERNEL_BIT, &self.sock_kernel_bit),
        ]
    }
}

/// The layout of the running kernel.
///
/// # Errors
/// When the kernel shows no types, or they have no such field.
pub(super) fn socket_layout() -> io::Result<SocketLayout> {
    layout_of(&fs::read(Path::new(VMLINUX))?)
}

fn layout_of(bytes: &[u8]) -> io::Result<SocketLayout> {
    let types = Types::parse(bytes).ok_or_else(|| invalid("it is not BTF of this machine's byte order"))?;
    let field = |structure: &str, path: &[&str]| {
        types
            .field(structure, path)
            .ok_or_else(|| invalid(&format!("struct {structure} has no {}", path.join("."))))
    };
    let bytes = |structure: &str, path: &[&str]| field(structure, path).map(|bits| bits / 8);
    let kernel = field("sock", &["sk_kern_sock"])?;
    Ok(SocketLayout {
        socket_sk: bytes("socket", &["sk"])?,
        socket_file: bytes("socket", &["file"])?,
        sock_family: bytes("sock", &["__sk_common", "skc_family"])?,
        sock_owned: bytes("sock", &["sk_lock", "owned"])?,
        sock_allocation: bytes("sock", &["sk_allocation"])?,
        sock_kernel: kernel / 8,
        sock_kernel_bit: kernel % 8,
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{VMLINUX}: {what}"))
}

/// One type: where its record begins, and what the first three words say.
#[derive(Clone, Copy, Debug)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    /// Size in bytes, or the type that it stands for.
    size_or_type: u32,
}

impl Type {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }
    fn members(self) -> usize {
        (self.info & 0xffff) as usize
    }
    /// Bytes after the three words.
    fn extra(self) -> Option<usize> {
        Some(match self.kind() {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 4,
            // ARRAY
            3 => 12,
            // STRUCT, UNION, DATASEC, ENUM64
            4 | 5 | 15 | 19 => self.members() * 12,
            // ENUM, FUNC_PROTO
            6 | 13 => self.members() * 8,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }
}

#[derive(Debug)]
struct Types<'a> {
    records: &'a [u8],
    strings: &'a [u8],
    /// Type 1 is the first: 0 is `void`.
    types: Vec<Type>,
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let word = |at| Self::word(bytes, at).map(|word| word as usize);
        let header = word(4)?;
        let section = |offset: usize, length: usize| {
            let begin = header.checked_add(word(offset)?)?;
            bytes.get(begin..begin.checked_add(word(length)?)?)
        };
        let (records, strings) = (section(8, 12)?, section(16, 20)?);
        let mut types = Vec::new();
        let mut at = 0;
        while at < records.len() {
            let word = |n: usize| Self::word(records, at + 4 * n);
            let found = Type { at, name: word(0)?, info: word(1)?, size_or_type: word(2)? };
            at = at.checked_add(12)?.checked_add(found.extra()?)?;
            types.push(found);
        }
        Some(Self { records, strings, types })
    }

    fn word(bytes: &[u8], at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn name(&self, at: u32) -> &'a [u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn get(&self, id: u32) -> Option<Type> {
        self.types.get((id as usize).checked_sub(1)?).copied()
    }

    /// Offset of a field in bits.
    fn field(&self, structure: &str, path: &[&str]) -> Option<u32> {
        let name = structure.as_bytes();
        let found = self.types.iter().find(|t| t.kind() == 4 && self.name(t.name) == name)?;
        path.iter()
            .try_fold((*found, 0), |(within, base), name| {
                let (bits, id) = self.member(within, name.as_bytes(), DEPTH)?;
                // The last one's type is not of interest; where it has none to look into, itself will do.
                Some((self.resolve(id).unwrap_or(within), base + bits))
            })
            .map(|(_, bits)| bits)
    }

    /// Offset in bits and type of a member, also of one in an unnamed structure.
    fn member(&self, within: Type, name: &[u8], depth: usize) -> Option<(u32, u32)> {
        let depth = depth.checked_sub(1)?;
        if !matches!(within.kind(), 4 | 5) {
            return None;
        }
        for n in 0..within.members() {
            let at = within.at + 12 + 12 * n;
            let word = |n: usize| Self::word(self.records, at + 4 * n);
            let (found, id, offset) = (word(0)?, word(1)?, word(2)?);
            // With bit fields the upper byte is the number of bits.
            let bits = if within.info >> 31 == 1 { offset & 0x00ff_ffff } else { offset };
            let found = self.name(found);
            if found == name {
                return Some((bits, id));
            }
            if found.is_empty()
                && let Some((inner, id)) = self.resolve(id).and_then(|t| self.member(t, name, depth))
            {
                return Some((bits + inner, id));
            }
        }
        None
    }

    /// What typedefs and qualifiers stand for.
    fn resolve(&self, id: u32) -> Option<Type> {
        let mut found = self.get(id)?;
        for _ in 0..DEPTH {
            match found.kind() {
                8..=11 | 18 => found = self.get(found.size_or_type)?,
                _ => return Some(found),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct sock_common { u16 pad, skc_family }`, `typedef struct { u32 owned } socket_lock_t`, and the
    /// two structures around them, one with an unnamed one inside.
    fn made_up() -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut name = |text: &str| {
            let at = strings.len() as u32;
            strings.extend(text.bytes());
            strings.push(0);
            at
        };
        let structure = |members: u32| 4 << 24 | members;
        let flagged = |members: u32| 1 << 31 | structure(members);
        let records: Vec<u32> = [
            // 1: an integer
            vec![name("u32"), 1 << 24, 4, 32],
            // 2
            vec![name("sock_common"), structure(2), 4, name("pad"), 1, 0, name("skc_family"), 1, 16],
            // 3, 4
            vec![0, structure(1), 4, name("owned"), 1, 0],
            vec![name("socket_lock_t"), 8 << 24, 3],
            // 5
            vec![0, flagged(1), 1, name("sk_kern_sock"), 1, 1 << 24 | 3],
            // 6
            [
                vec![name("sock"), flagged(4), 16, name("__sk_common"), 2, 0, name("sk_lock"), 4, 64],
                vec![name("sk_allocation"), 1, 96, 0, 5, 120],
            ]
            .concat(),
            // 7
            vec![name("socket"), structure(2), 16, name("file"), 1, 32, name("sk"), 1, 64],
        ]
        .concat();
        let records: Vec<u8> = records.into_iter().flat_map(u32::to_ne_bytes).collect();
        let lengths = [24, 0, records.len(), records.len(), strings.len()];
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(lengths.into_iter().flat_map(|n| (n as u32).to_ne_bytes()));
        bytes.extend(records);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_through_typedefs_and_unnamed_structures() {
        let expect = SocketLayout {
            socket_sk: 8,
            socket_file: 4,
            sock_family: 2,
            sock_owned: 8,
            sock_allocation: 12,
            sock_kernel: 15,
            sock_kernel_bit: 3,
        };
        assert_eq!(layout_of(&made_up()).unwrap(), expect);
    }

    #[test]
    fn what_is_not_whole_is_an_error() {
        let whole = made_up();
        for length in 0..whole.len() - 1 {
            // Cut anywhere, it either misses a section or a name; it never panics.
            let _error = layout_of(&whole[..length]).unwrap_err();
        }
        let mut renamed = whole.clone();
        let at = whole.windows(12).position(|bytes| bytes == b"sk_kern_sock").unwrap();
        renamed[at] = b'x';
        assert!(layout_of(&renamed).is_err());
    }

    #[test]
    fn the_running_kernels() {
        let layout = socket_layout().unwrap();
        // Documented nowhere, but the same in every kernel since 3.x.
        assert_eq!(layout.sock_family, 16);
        assert!(layout.socket_sk > 0 && layout.socket_file > 0 && layout.sock_owned > 64);
    }
}
