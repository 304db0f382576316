//! First bytes of protocols, and what they are called.

use super::*;

/// PostgreSQL's StartupMessage.
fn startup_message(fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + fields.len()).unwrap();
    [&length.to_be_bytes(), 196_608_u32.to_be_bytes().as_slice(), fields].concat()
}

/// MySQL's greeting with `version`.
fn greeting(version: &[u8]) -> Vec<u8> {
    let body = [b"\x0a", version, b"\0", &[7; 60]].concat();
    [&[u8::try_from(body.len()).unwrap(), 0, 0, 0], body.as_slice()].concat()
}

/// MySQL's answer to it.
fn response(able: u32, rest: &[u8]) -> Vec<u8> {
    [&[0, 0, 0, 1], able.to_le_bytes().as_slice(), &[0; 28], rest].concat()
}

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn names_what_it_knows() {
    let ssl_then = |rest: &[u8]| [SSL_REQUEST, rest].concat();
    let alice = startup_message(b"user\0alice\0database\0shop\0application_name\0psql\0\0");
    let rows: Vec<(Vec<u8>, Vec<u8>, &str, &str)> = vec![
        (
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\0\0\x05".to_vec(),
            b"SSH-2.0-Go\r\n".to_vec(),
            "ssh",
            "SSH-2.0-OpenSSH_9.2p1 Debian-2 to SSH-2.0-Go",
        ),
        (vec![], b"SSH-2.0-dropbear\n".to_vec(), "ssh", "to SSH-2.0-dropbear"),
        (b"SSH-2.0-x\r\n".to_vec(), b"hello\r\nSSH-1.99-y\r\n".to_vec(), "ssh", "SSH-2.0-x to SSH-1.99-y"),
        (alice.clone(), vec![], "postgres", "user alice, database shop"),
        (ssl_then(&alice), b"N".to_vec(), "postgres", "user alice, database shop"),
        (ssl_then(&[22, 3, 1]), b"S".to_vec(), "postgres", "TLS asked for"),
        (startup_message(b"user\0eve\0\0"), vec![], "postgres", "user eve"),
        (startup_message(b"\0"), vec![], "postgres", ""),
        (startup_message(b"user\0a\x1b[2Jb\0\0"), vec![], "postgres", "user a\u{fffd}[2Jb"),
        (
            [&[0, 0, 0, 16], 80_877_102_u32.to_be_bytes().as_slice(), &[1; 8]].concat(),
            vec![],
            "postgres",
            "cancels a query",
        ),
        (vec![], greeting(b"8.0.36"), "mysql", "to 8.0.36"),
        (
            response(0x20_8008, b"root\0\x14aaaaaaaaaaaaaaaaaaaashop\0mysql_native_password\0"),
            greeting(b"5.5.5-10.11.6-MariaDB"),
            "mysql",
            "to 5.5.5-10.11.6-MariaDB, user root, database shop",
        ),
        (response(0x8000, b"root\0\x03abc"), greeting(b"8.4.0"), "mysql", "to 8.4.0, user root"),
        (
            response(0x8, b"root\0proof\0shop\0"),
            greeting(b"4.1"),
            "mysql",
            "to 4.1, user root, database shop",
        ),
        (response(0x800, b""), greeting(b"8.4.0"), "mysql", "to 8.4.0, TLS asked for"),
        (b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n".to_vec(), vec![], "redis", "begins with AUTH"),
        (b"*1\r\n$4\r\nping\r\n".to_vec(), b"+PONG\r\n".to_vec(), "redis", "begins with PING"),
        (vec![], b"220 mx.example ESMTP Postfix\r\n".to_vec(), "smtp", "to mx.example ESMTP Postfix"),
        (b"ehlo me\r\n".to_vec(), b"220-mx.example\r\n".to_vec(), "smtp", "to mx.example"),
        (
            b"0033git-upload-pack /project.git\0host=git.example\0".to_vec(),
            vec![],
            "git",
            "git-upload-pack /project.git",
        ),
    ];
    for (up, down, protocol, note) in rows {
        let shown = (String::from_utf8_lossy(&up).into_owned(), String::from_utf8_lossy(&down).into_owned());
        let expect = Named { protocol, note: note.to_owned() };
        assert_eq!(name(&up, &down), Some(expect), "{shown:?}");
        // Never named as something else on the way, and never a panic.
        for end in 0..up.len() {
            assert!(
                name(&up[..end], &down).is_none_or(|named| named.protocol == protocol),
                "{end} of {shown:?}"
            );
        }
        for end in 0..down.len() {
            assert!(
                name(&up, &down[..end]).is_none_or(|named| named.protocol == protocol),
                "{end} of {shown:?}"
            );
        }
    }
}

#[test]
fn leaves_the_rest_unnamed() {
    let rows: [(&[u8], &[u8]); 10] = [
        (b"", b""),
        (b"", b"220 ftp.example FTP server ready\r\n"),
        (b"USER me\r\n", b"220 ftp.example\r\n"),
        (b"hello", b"a line\r\nSSH-2.0-x\r\n"),
        (&[0, 0, 0, 8, 4, 210, 22, 47, 0, 0, 0, 8, 4, 210, 22, 47, 0, 0, 0, 8, 4, 210, 22, 47], b""),
        (&[0, 0, 0, 4, 0, 3, 0, 0], b""),
        (b"", &[10, 0, 0, 0, 10, b'x', 0]),
        (b"*2\r\n$99999999999999999999\r\nGET\r\n", b""),
        (b"*1\r\n$4\r\nP\x00NG\r\n", b""),
        (b"zzzzgit-upload-pack /x\0", b""),
    ];
    for (up, down) in rows {
        assert_eq!(name(up, down), None, "{up:?} {down:?}");
    }
}

/// The proof of a password stands between user and database, and a password in Redis's first command.
#[test]
fn takes_no_secret() {
    let mut naming = Naming::default();
    for byte in b"*3\r\n$4\r\nAUTH\r\n$4\r\nuser\r\n$6\r\nsecret\r\n" {
        naming.agent(&[*byte]);
    }
    assert!(!naming.named().unwrap().note.contains("secret"));
    let mut naming = Naming::default();
    naming.origin(&greeting(b"8.0.36"));
    naming.agent(&response(0x8008, b"root\0\x06secretshop\0"));
    assert_eq!(naming.named().unwrap().note, "to 8.0.36, user root, database shop");
}

#[test]
fn looks_at_no_more_than_the_beginning() {
    let mut naming = Naming::default();
    for _ in 0..3 {
        naming.agent(&[b'S'; 700]);
        naming.origin(&[b'x'; 2000]);
    }
    assert_eq!((naming.up.len(), naming.down.len()), (LOOKED_AT, LOOKED_AT));
    assert_eq!(naming.named(), None);
}
