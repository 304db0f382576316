//! A git repository of one commit, as a plain web server has it: the files that `git clone` asks for
//! (gitprotocol-http(5), dumb clients).

/// The one commit, on `main`.
pub const COMMIT: &str = "7c759c2ceb964243d2cc8e9dc800aa2bedcf4eca";
/// What its README says.
pub const README: &str = "over the gate";

/// Names of the commit, its tree and its file, each with its deflated bytes in hex.
const OBJECTS: [(&str, &str); 3] = [
    (
        "70a4bdf5382b0291952c5da02075683992e5cb30",
        "78014bcac94f52303461c82f4b2d5228c94855484f2c49e502005191070d",
    ),
    (
        "72a39635a84d9ea7d09c072f7de9504b0feaa713",
        "78012b294a4d553036613034303033315108727574f175652858b2f7ab8536d3c4a93ab10b144a332c273d3d6d00000a\
         a70e57",
    ),
    (
        "7c759c2ceb964243d2cc8e9dc800aa2bedcf4eca",
        "7801958d4b0ac23010405de714b31764f21d0345baf21e6332c1a2312546f0f82ddec0b778bbc74badd66580f6ee30ba\
         0890611b83f57c76390a53c698904ca12cd1a3bb611166d256f167dc5b872b3f04a6b27b6eabbc4ef2e5ba3ee5029a02\
         19e303221c7147a5df69c83f8d2a4b7f0fb5010b6230d1",
    ),
];

/// The file at a path within the repository.
pub(crate) fn file(path: &str) -> Option<Vec<u8>> {
    match path {
        "HEAD" => return Some(b"ref: refs/heads/main\n".to_vec()),
        "info/refs" => return Some(format!("{COMMIT}\trefs/heads/main\n").into_bytes()),
        _ => {}
    }
    let name = path.strip_prefix("objects/")?.replace('/', "");
    let (_, hex) = OBJECTS.iter().find(|(object, _)| *object == name)?;
    bytes(hex)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}
