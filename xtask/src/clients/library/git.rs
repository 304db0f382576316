//! git over https: what people's agents do at a forge.

use super::super::{
    case::{Case, Client, Version},
    kit::SYSTEM,
};

static GIT: Client = Client { name: "git", kit: &SYSTEM, version: Version::Says(&["git", "--version"]) };

/// Commands of a shell that stops at the first that fails; what they print of their progress is no output.
fn git(name: &'static str, commands: &str) -> Case {
    let script = format!("set -eu\nexport GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0\n{commands}");
    Case::new(&GIT, name, &["sh", "-c", &script])
}

const IDENTITY: &str = "git config user.name Agent; git config user.email agent@open.example; \
    export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'";

pub(super) fn cases() -> Vec<Case> {
    let clone = "git clone --quiet https://open.example/git/work.git work && cd work";
    vec![
        git("ls-remote", "git ls-remote https://open.example/git/work.git").says("refs/tags/v1"),
        git("clone", &format!("{clone} && git log --oneline --all && wc -c big.txt && git fsck"))
            .says("commit 2")
            .requests(3),
        git("clone, shallow, http/1.1", "git -c http.version=HTTP/1.1 clone --quiet --depth 1 https://open.example/git/work.git work && git -C work log --oneline")
            .says("commit 2")
            .requests(3),
        git("clone, protocol of version 0", &format!("git -c protocol.version=0 {} && git log --oneline", clone.trim_start_matches("git ")))
            .says("commit 2")
            .requests(2),
        git(
            "push and fetch",
            &format!(
                "{clone}\n{IDENTITY}\necho three >> file.txt\ngit commit --quiet --all --message three\n\
                 git push --quiet origin main HEAD:refs/heads/new\ncd ..\n\
                 git clone --quiet --branch new https://open.example/git/work.git again\ncd again\n\
                 git fetch --quiet --tags\ngit log --oneline"
            ),
        )
        .says("three")
        .requests(8),
        git(
            "push of 3 MB in chunks",
            &format!(
                "{clone}\n{IDENTITY}\nopenssl enc -aes-128-ctr -K 00 -iv 00 -nosalt -in /dev/zero 2>/dev/null | head -c 3000000 > random\n\
                 git add random\ngit commit --quiet --message random\ngit push --quiet origin main\n\
                 git ls-remote origin"
            ),
        )
        .says("refs/heads/main")
        .requests(6),
        git("a repository that is not there", "git clone --quiet https://open.example/status/404 x 2>&1 || echo ended $?")
            .says("ended 128"),
    ]
}
