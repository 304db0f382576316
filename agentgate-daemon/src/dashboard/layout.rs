//! The frame around every page: head, top bar, banners.

use maud::{DOCTYPE, Markup, html};

use crate::{dashboard::show::visible, model::Mode};

/// What every page says of the gate's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) mode: Mode,
    /// First characters of the policy's digest.
    pub(super) digest: String,
    /// Errors that keep a changed policy from being installed.
    pub(super) policy_errors: Vec<String>,
    /// What keeps the audit log from being written.
    pub(super) audit_error: Option<String>,
}

/// The page for someone who is logged in.
#[must_use]
pub(super) fn page(title: &str, standing: &Standing, csrf: &str, main: &Markup) -> Markup {
    frame(
        title,
        &html! {
            header.top {
                a.brand href="/" { img src="/static/mark.svg" alt="" width="20" height="20"; "agentgate" }
                nav aria-label="Pages" { a href="/" { "Traffic" } }
                span.grow {}
                span.mode.(standing.mode.as_str()) title=(format!("policy {}", standing.digest)) {
                    span.dim { "mode " } (standing.mode.as_str())
                }
                form method="post" action="/logout" {
                    input type="hidden" name="csrf" value=(csrf);
                    button.quiet type="submit" { "Log out" }
                }
            }
            (banners(standing))
            main #main { (main) }
        },
    )
}

/// The page for someone who is not: no state of the gate on it.
#[must_use]
pub(super) fn bare(title: &str, main: &Markup) -> Markup {
    frame(
        title,
        &html! {
            header.top { span.brand { img src="/static/mark.svg" alt="" width="20" height="20"; "agentgate" } }
            main #main { (main) }
        },
    )
}

fn frame(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (visible(title)) " · agentgate" }
                link rel="icon" href="/static/mark.svg" type="image/svg+xml";
                link rel="stylesheet" href="/static/app.css";
                script src="/static/page.js" defer {}
                script src="/static/live.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                (body)
            }
        }
    }
}

/// Warnings that belong on every page: a policy that was not installed, an audit log that cannot be
/// written, a mode that refuses nothing.
fn banners(standing: &Standing) -> Markup {
    html! {
        @if let Some(error) = &standing.audit_error {
            div.banner.bad role="alert" {
                strong { "The audit log cannot be written." }
                " Nothing passes the gate until it can: what is not recorded is not sent."
                pre { (visible(error)) }
            }
        }
        @if !standing.policy_errors.is_empty() {
            div.banner.bad role="alert" {
                strong { "The policy has errors and was not installed." }
                " The last good one is in force; after a start with errors that is enforce with empty lists."
                ul { @for error in &standing.policy_errors { li { code { (visible(error)) } } } }
            }
        }
        @if standing.mode == Mode::Audit {
            div.banner.warn role="status" {
                strong { "Audit mode: nothing is refused." }
                " What the policy would have refused is flagged " code { "would_block" } "."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> Standing {
        Standing { mode: Mode::Enforce, digest: "abc".into(), policy_errors: vec![], audit_error: None }
    }

    #[test]
    fn banners_show_only_what_is_wrong() {
        assert_eq!(banners(&standing()).into_string(), "");
        let audit = Standing { mode: Mode::Audit, ..standing() };
        assert!(banners(&audit).into_string().contains("nothing is refused"));
        let broken = Standing { policy_errors: vec!["policy.toml:3:7: <b>".into()], ..standing() };
        let text = banners(&broken).into_string();
        assert!(text.contains("policy.toml:3:7: &lt;b&gt;") && text.contains("not installed"), "{text}");
        let full = Standing { audit_error: Some("no space left on device".into()), ..standing() };
        assert!(banners(&full).into_string().contains("no space left on device"));
    }

    #[test]
    fn a_page_has_no_inline_script_or_style() {
        let text = page("a <title>", &standing(), "token", &html! { p { "x" } }).into_string();
        assert!(text.contains("<title>a &lt;title&gt; · agentgate</title>"));
        assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick="));
        assert_eq!(text.matches("<script src=\"/static/").count(), 2, "{text}");
        assert_eq!(text.matches("<script").count(), 2, "only the external ones: {text}");
    }
}
