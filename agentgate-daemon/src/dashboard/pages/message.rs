//! Short pages: logging in, and what went wrong.

use maud::{Markup, html};

use crate::dashboard::show::visible;

/// The login form; `error` says why the last attempt failed.
#[must_use]
pub(in crate::dashboard) fn login(error: Option<&str>) -> Markup {
    html! {
        div.card.narrow {
            h1 { "Log in" }
            p { "On the host, print an address that logs in once, and open it within two minutes:" }
            pre { "agentctl dashboard" }
            @if let Some(error) = error { p.banner.bad role="alert" { (error) } }
            form.stack method="post" action="/login" {
                label { span { "Or paste the dashboard's token" }
                    input type="password" name="token" required autofocus autocomplete="current-password" maxlength="128" spellcheck="false";
                }
                button.primary type="submit" { "Log in" }
            }
            (names())
        }
    }
}

/// For the browser that cannot find the next page.
fn names() -> Markup {
    html! {
        details.dim.small {
            summary { "The browser does not find the next page?" }
            p {
                "Each session has an address of its own that ends in " code { ".localhost" } ", so that its cookie "
                "goes to no other server on this machine. Firefox and Chromium, with Chrome and Edge, know that "
                "such names mean this machine. If yours asks the network for them, use one of those."
            }
        }
    }
}

/// Sends a browser that has logged in on to `host`, its session's.
#[must_use]
pub(in crate::dashboard) fn onward(host: &str, to: &str) -> Markup {
    html! {
        div.card.narrow {
            h1 { "Logged in" }
            p { "Going on to this session's own address:" }
            p { a #onward href=(to) { code { (host) } } }
            (names())
        }
    }
}

/// The first page under the session's name, seen for a moment.
#[must_use]
pub(in crate::dashboard) fn entered() -> Markup {
    html! {
        div.card.narrow {
            h1 { "Logged in" }
            p { a href="/" { "To the traffic" } }
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
