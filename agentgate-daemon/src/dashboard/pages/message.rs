//! Short pages: logging in, and what went wrong.

use maud::{Markup, html};

use crate::dashboard::show::visible;

/// The login form; `error` says why the last attempt failed.
#[must_use]
pub(in crate::dashboard) fn login(error: Option<&str>) -> Markup {
    html! {
        div.card.narrow {
            h1 { "Log in" }
            p { "On the host, print the address with its token, and open it, or paste the token here:" }
            pre { "agentctl dashboard" }
            @if let Some(error) = error { p.banner.bad role="alert" { (error) } }
            form.stack method="post" action="/login" {
                label { span { "Token" }
                    input type="password" name="token" required autofocus autocomplete="current-password" maxlength="128" spellcheck="false";
                }
                button.primary type="submit" { "Log in" }
            }
        }
    }
}

/// A page that says one thing and where to go from there.
#[must_use]
pub(in crate::dashboard) fn message(title: &str, text: &str) -> Markup {
    html! {
        div.card.narrow {
            h1 { (title) }
            p { (visible(text)) }
            p { a href="/" { "To the traffic" } }
        }
    }
}
