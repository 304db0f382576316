//! How each runtime is made to connect, and how it is seen that it got an answer.

/// What a script prints when it got an answer, whatever the status.
pub(super) const ANSWERED: &str = "answered";
/// What a script exits with where a library is not installed.
pub(super) const ABSENT: i32 = 3;

/// The URL: the gate's own name.
macro_rules! url {
    () => {
        "https://trust.agentgate.internal/"
    };
}

/// How an answer shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reading {
    /// It prints [`ANSWERED`].
    Prints,
    /// By one of these exit codes, or by one of these texts.
    Code(&'static [i32], &'static [&'static str]),
}

/// One runtime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// Looked for in this order.
    pub(super) programs: &'static [&'static str],
    pub(super) arguments: &'static [&'static str],
    /// Besides what this process has.
    pub(super) variables: &'static [(&'static str, &'static str)],
    pub(super) reading: Reading,
    /// What to do where it does not trust the gate; the files have names in braces.
    pub(super) advice: &'static str,
}

const fn script(
    name: &'static str,
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
    advice: &'static str,
) -> Probe {
    Probe { name, programs, arguments, variables: &[], reading: Reading::Prints, advice }
}

/// For node, deno and bun.
const FETCH: &str = concat!(
    "const url='",
    url!(),
    "';(globalThis.fetch?fetch(url):new Promise((yes,no)=>require('https').get(url,yes).on('error',no)))",
    ".then(()=>console.log('answered'),e=>console.error(String(e.cause&&(e.cause.code||e.cause.message)||e)))"
);

pub(super) const PROBES: [Probe; 15] = [
    Probe {
        name: "curl",
        programs: &["curl"],
        arguments: &["-sS", "-m", "20", "-o", "/dev/null", url!()],
        variables: &[],
        // 22: a status of 400 or more, with --fail in the user's settings.
        reading: Reading::Code(&[0, 22], &[]),
        advice: "export CURL_CA_BUNDLE={bundle}",
    },
    Probe {
        name: "wget",
        programs: &["wget"],
        arguments: &["-O", "/dev/null", "-T", "20", url!()],
        variables: &[("LC_ALL", "C")],
        // 8: the server says an error. Busybox's has other codes.
        reading: Reading::Code(&[8], &["403 Forbidden"]),
        advice: "start it with `agentctl run --system-bundle`, or put `ca_certificate = {bundle}` into \
                 ~/.wgetrc",
    },
    Probe {
        name: "git",
        programs: &["git"],
        arguments: &["ls-remote", concat!(url!(), "x")],
        variables: &[("LC_ALL", "C"), ("GIT_TERMINAL_PROMPT", "0")],
        reading: Reading::Code(&[], &["returned error: 403"]),
        advice: "export GIT_SSL_CAINFO={bundle}",
    },
    script(
        "python",
        &["python3", "python"],
        &[
            "-c",
            concat!(
                "import urllib.error, urllib.request\n",
                "try:\n    urllib.request.urlopen('",
                url!(),
                "', timeout=20)\n",
                "except urllib.error.HTTPError:\n    pass\n",
                "print('answered')\n"
            ),
        ],
        "export SSL_CERT_FILE={bundle}",
    ),
    script(
        "requests",
        &["python3", "python"],
        &[
            "-c",
            concat!(
                "import sys\ntry:\n    import requests\nexcept ImportError:\n    sys.exit(3)\n",
                "requests.get('",
                url!(),
                "', timeout=20)\nprint('answered')\n"
            ),
        ],
        "export REQUESTS_CA_BUNDLE={bundle}",
    ),
    script(
        "httpx",
        &["python3", "python"],
        &[
            "-c",
            concat!(
                "import sys\ntry:\n    import httpx\nexcept ImportError:\n    sys.exit(3)\n",
                "httpx.get('",
                url!(),
                "', timeout=20)\nprint('answered')\n"
            ),
        ],
        "export SSL_CERT_FILE={bundle}",
    ),
    script("node", &["node"], &["-e", FETCH], "export NODE_EXTRA_CA_CERTS={added}"),
    Probe {
        variables: &[("DENO_NO_UPDATE_CHECK", "1")],
        ..script("deno", &["deno"], &["eval", FETCH], "export DENO_CERT={added}")
    },
    script("bun", &["bun"], &["-e", FETCH], "export NODE_EXTRA_CA_CERTS={added}"),
    Probe {
        name: "java",
        // Comes with every Java, and reads a list of revoked certificates from where it is told.
        programs: &["keytool"],
        arguments: &["-J-Duser.language=en", "-printcrl", "-file", url!()],
        variables: &[],
        reading: Reading::Code(&[], &["response code: 403"]),
        advice: "start it with `agentctl run --system-bundle`, or export \
                 JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore={java}, or: keytool -importcert -noprompt -cacerts \
                 -alias agentgate -file {added}",
    },
    Probe {
        name: "go",
        programs: &["go"],
        // The command itself, which is written in Go: to compile a program would take a minute.
        arguments: &["list", "-m", "trust.agentgate.internal/x@v1.0.0"],
        variables: &[
            ("GOPROXY", url!()),
            ("GO111MODULE", "on"),
            ("GOFLAGS", "-mod=mod"),
            ("GOPRIVATE", ""),
            ("GONOPROXY", "none"),
            ("GOSUMDB", "off"),
            ("GOTOOLCHAIN", "local"),
        ],
        reading: Reading::Code(&[], &["403 Forbidden"]),
        advice: "export SSL_CERT_FILE={bundle}",
    },
    Probe {
        name: "cargo",
        programs: &["cargo"],
        arguments: &["search", "x", "--index", concat!("sparse+", url!())],
        variables: &[("CARGO_NET_RETRY", "0")],
        reading: Reading::Code(&[], &["got 403"]),
        advice: "export CARGO_HTTP_CAINFO={bundle}",
    },
    script(
        "ruby",
        &["ruby"],
        &["-rnet/http", "-e", concat!("Net::HTTP.get_response(URI('", url!(), "')); puts 'answered'")],
        "export SSL_CERT_FILE={bundle}",
    ),
    script(
        "php",
        &["php"],
        &[
            "-r",
            concat!(
                "if (!extension_loaded('openssl')) exit(3);",
                "$c = stream_context_create(['http' => ['ignore_errors' => true, 'timeout' => 20]]);",
                "if (file_get_contents('",
                url!(),
                "', false, $c) !== false) echo 'answered';"
            ),
        ],
        "export SSL_CERT_FILE={bundle}, or put `openssl.cafile = {bundle}` into php.ini",
    ),
    script(
        "perl",
        &["perl"],
        &[
            "-e",
            concat!(
                "eval { require LWP::UserAgent; require LWP::Protocol::https; 1 } or exit 3;",
                "my $r = LWP::UserAgent->new(timeout => 20)->get('",
                url!(),
                "'); die $r->status_line if ($r->header('Client-Warning') // '') eq 'Internal response';",
                "print 'answered'"
            ),
        ],
        "export SSL_CERT_FILE={bundle}",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OWN_NAME;

    #[test]
    fn the_url_is_the_gate_s_own_name() {
        assert_eq!(url!(), format!("https://{OWN_NAME}/"));
        assert!(FETCH.contains(ANSWERED));
    }
}
