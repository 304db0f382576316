//! Both ends of one exchange, and what each holds against the plan.

use std::{
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, ext::Protocol, server::SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::{
    sync::{oneshot, watch},
    task::yield_now,
    time::{sleep, timeout},
};

use super::plan::{Body, By, End, Plan, Reset, Stage, arrived, head};
use crate::{generate::Random, setup::PATIENCE};

/// After so long without data a reader lets `h2` look at its window again. What comes before the
/// acknowledgement of settings with a small window may leave that window below zero when they take effect,
/// and `h2` (0.4.20) then owes a WINDOW_UPDATE that only the next release of room makes it send; if all was
/// released before, there is none. A release of nothing says nothing where none is owed.
const NUDGE: Duration = Duration::from_millis(100);

async fn pause(cuts: &mut Random) {
    match cuts.below(30) {
        0 => sleep(Duration::from_micros(cuts.below(3000) as u64)).await,
        1..=5 => yield_now().await,
        _ => {}
    }
}

/// Sends `body`, or the first `most` bytes of it without an end. False where the other side takes no more.
async fn send(to: &mut SendStream<Bytes>, body: &Body, most: Option<usize>, cuts: &mut Random) -> bool {
    let mut left = most.unwrap_or(usize::MAX);
    for (at, piece) in body.pieces.iter().enumerate() {
        let mut piece = piece.slice(..piece.len().min(left));
        left -= piece.len();
        let last = most.is_none() && body.end == End::LastData && at + 1 == body.pieces.len();
        // Both are right: to wait for room, and to leave that to `h2`.
        let waits = cuts.once_in(2);
        while waits && piece.len() > 1 {
            to.reserve_capacity(piece.len());
            if to.capacity() == 0 {
                match poll_fn(|cx| to.poll_capacity(cx)).await {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return false,
                }
            }
            let room = to.capacity().min(piece.len() - 1);
            if to.send_data(piece.split_to(room), false).is_err() {
                return false;
            }
        }
        if to.send_data(piece, last).is_err() {
            return false;
        }
        pause(cuts).await;
        if left == 0 {
            return true;
        }
    }
    if most.is_some() {
        return true;
    }
    match (&body.trailers, body.end) {
        (Some(trailers), _) => to.send_trailers(trailers.clone()).is_ok(),
        (None, End::EmptyData) => to.send_data(Bytes::new(), true).is_ok(),
        (None, End::Head | End::LastData | End::Trailers) => true,
    }
}

/// What came of a body.
#[derive(Debug)]
struct Got {
    bytes: Vec<u8>,
    end: Result<Option<HeaderMap>, h2::Error>,
}

/// Reads a body, and gives its room back now and then.
async fn read(
    mut body: RecvStream,
    at: &watch::Sender<usize>,
    cuts: &mut Random,
    most: usize,
) -> Result<Got, String> {
    let (mut bytes, mut held) = (Vec::new(), 0);
    // A third of the smallest window, and one that all streams of a connection may hold together.
    let holds = cuts.below(330);
    loop {
        if bytes.len() >= most {
            return Ok(Got { bytes, end: Ok(None) });
        }
        if held > 0 && held >= holds {
            pause(cuts).await;
            // The stream may be over by now.
            let _gone = body.flow_control().release_capacity(held);
            held = 0;
        }
        let data = timeout(PATIENCE, async {
            loop {
                match timeout(NUDGE, body.data()).await {
                    Ok(data) => break data,
                    // The stream may be over by now.
                    Err(_elapsed) => drop(body.flow_control().release_capacity(0)),
                }
            }
        });
        match data.await.map_err(|_| format!("nothing came after {} bytes", bytes.len()))? {
            Some(Ok(data)) => {
                bytes.extend_from_slice(&data);
                held += data.len();
                at.send_modify(|at| *at += data.len());
            }
            Some(Err(error)) => return Ok(Got { bytes, end: Err(error) }),
            None => break,
        }
    }
    let end = timeout(PATIENCE, body.trailers()).await.map_err(|_| "no trailers came".to_owned())?;
    if end.is_ok() {
        at.send_modify(|at| *at += 1);
    }
    Ok(Got { bytes, end })
}

/// The whole body and its trailers.
fn whole(got: &Got, body: &Body, what: &str) -> Result<(), String> {
    same(&got.bytes, &body.bytes(), what)?;
    match (&got.end, &body.trailers) {
        (Ok(None), None) => Ok(()),
        (Ok(Some(got)), Some(sent)) => alike(got, sent, "trailers"),
        (got, sent) => Err(format!("{what} ends with {got:?} instead of {sent:?}")),
    }
}

/// The beginning of a body and then a reset; `exact` where none of what was sent may be missing.
fn cut(got: &Got, body: &Body, exact: Option<usize>, reasons: &[Reason], what: &str) -> Result<(), String> {
    let all = body.bytes();
    let length = got.bytes.len();
    if exact.is_some_and(|exact| exact != length) || !all.starts_with(&got.bytes) {
        return Err(format!("{what}: {length} bytes of {exact:?} before a reset, or others"));
    }
    match &got.end {
        Err(error) if error.reason().is_some_and(|reason| reasons.contains(&reason)) => Ok(()),
        other => Err(format!("{what}: {other:?} instead of a reset with {reasons:?}")),
    }
}

fn same(got: &[u8], sent: &[u8], what: &str) -> Result<(), String> {
    if got == sent {
        return Ok(());
    }
    let at = got.iter().zip(sent).take_while(|(a, b)| a == b).count();
    Err(format!("{what} differs at {at}: {} bytes instead of {}", got.len(), sent.len()))
}

/// The same fields in the same order.
fn alike(got: &HeaderMap, sent: &HeaderMap, what: &str) -> Result<(), String> {
    if got.iter().eq(sent.iter()) { Ok(()) } else { Err(format!("{what}: {got:?} instead of {sent:?}")) }
}

fn ended(is: bool, body: &Body, what: &str) -> Result<(), String> {
    let sent = body.end == End::Head;
    if is == sent { Ok(()) } else { Err(format!("{what}: END_STREAM with the head is {is}, was {sent}")) }
}

async fn reset_of(
    polled: impl Future<Output = Result<Reason, h2::Error>>,
    reasons: &[Reason],
) -> Result<(), String> {
    match timeout(PATIENCE, polled).await {
        Ok(Ok(reason)) if reasons.contains(&reason) => Ok(()),
        other => Err(format!("{other:?} instead of a reset with {reasons:?}")),
    }
}

/// The origin's side.
pub(super) async fn serve(
    plan: &Plan,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), String> {
    let (parts, body) = request.into_parts();
    if parts.method != plan.method || parts.uri != plan.uri {
        return Err(format!("{} {} arrived", parts.method, parts.uri));
    }
    let protocol = |protocol: Option<&Protocol>| protocol.map(|name| name.as_str().to_owned());
    if protocol(parts.extensions.get()) != protocol(plan.protocol.as_ref()) {
        return Err("another protocol arrived".to_owned());
    }
    alike(&parts.headers, &plan.fields, "the request's fields")?;
    let reset = plan.reset;
    if !reset.is_some_and(|reset| matches!(reset.by, By::Agent { .. }) && !reset.settled) {
        ended(body.is_end_stream(), &plan.up, "the request")?;
    }
    let at = &plan.progress.at_origin;
    at.send_modify(|at| *at += 1);
    let mut cuts = plan.cuts.clone();
    for (status, fields) in &plan.interim {
        if respond.send_informational(head(*status, fields)).is_err() && reset.is_none() {
            return Err("an interim answer could not be sent".to_owned());
        }
        pause(&mut cuts).await;
    }
    let Some(reset) = reset else {
        let mut reader = cuts.clone();
        let reading =
            async { whole(&read(body, at, &mut reader, usize::MAX).await?, &plan.up, "the request") };
        let answering = async {
            let sent = respond.send_response(plan.response(), plan.down.end == End::Head);
            let mut to = sent.map_err(|error| format!("answering: {error}"))?;
            let taken = plan.down.end == End::Head || send(&mut to, &plan.down, None, &mut cuts).await;
            if taken { Ok(to) } else { Err("its answer was not taken".to_owned()) }
        };
        if plan.early {
            return tokio::try_join!(reading, answering).map(drop);
        }
        reading.await?;
        return answering.await.map(drop);
    };
    match reset.by {
        By::Agent { answered } => broken(plan, reset, answered, body, respond, &mut cuts).await,
        By::Origin(stage) => breaks(plan, reset, stage, body, respond, &mut cuts).await,
    }
}

/// The agent resets.
async fn broken(
    plan: &Plan,
    reset: Reset,
    answered: bool,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    cuts: &mut Random,
) -> Result<(), String> {
    // What leaves with the end of its connection need not be told one by one.
    let reasons = |plan: &Plan| {
        if plan.progress.gone.load(Ordering::SeqCst) {
            vec![reset.reason, Reason::CANCEL]
        } else {
            vec![reset.reason]
        }
    };
    let mut reader = cuts.clone();
    let answering = async {
        if !answered {
            return Ok(None);
        }
        match respond.send_response(plan.response(), false) {
            Ok(mut stream) => {
                send(&mut stream, &plan.down, Some(usize::MAX), cuts).await;
                Ok(Some(stream))
            }
            Err(error) if reset.settled => Err(format!("answering: {error}")),
            Err(_reset_already) => Ok(None),
        }
    };
    let reading = async {
        if plan.up.end == End::Head {
            return Ok(());
        }
        let got = read(body, &plan.progress.at_origin, &mut reader, usize::MAX).await?;
        cut(&got, &plan.up, reset.settled.then_some(reset.sends), &reasons(plan), "the request")
    };
    let (mut to, ()) = tokio::try_join!(answering, reading)?;
    match &mut to {
        Some(to) => reset_of(poll_fn(|cx| to.poll_reset(cx)), &reasons(plan)).await,
        None => reset_of(poll_fn(|cx| respond.poll_reset(cx)), &reasons(plan)).await,
    }
}

/// The origin resets.
async fn breaks(
    plan: &Plan,
    reset: Reset,
    stage: Stage,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    cuts: &mut Random,
) -> Result<(), String> {
    let Reset { reason, settled, sends, .. } = reset;
    let sends = if plan.up.end == End::Head { 0 } else { sends };
    // Kept to the end, or `h2` resets the stream by itself.
    let mut body = Some(body);
    if settled && sends > 0 {
        let got = read(body.take().unwrap(), &plan.progress.at_origin, cuts, sends).await?;
        if plan.up.bytes().get(..sends) != Some(&got.bytes) {
            return Err("the beginning of the request's body differs".to_owned());
        }
    }
    let answer = |respond: &mut SendResponse<Bytes>, end| {
        respond.send_response(plan.response(), end).map_err(|error| format!("answering: {error}"))
    };
    match stage {
        Stage::Unanswered => respond.send_reset(reason),
        Stage::Amid(length) => {
            let mut to = answer(&mut respond, false)?;
            send(&mut to, &plan.down, Some(length), cuts).await;
            if settled {
                arrived(&plan.progress.at_agent, 1 + length).await?;
            }
            to.send_reset(reason);
        }
        Stage::Unwanted => {
            let mut to = answer(&mut respond, plan.down.end == End::Head)?;
            if plan.down.end != End::Head && !send(&mut to, &plan.down, None, cuts).await {
                return Err("its answer was not taken".to_owned());
            }
            arrived(&plan.progress.at_agent, 2 + plan.down.length()).await?;
            to.send_reset(reason);
        }
    }
    Ok(())
}

/// The answer's head, after the interim ones.
async fn answered(
    response: &mut client::ResponseFuture,
    plan: &Plan,
    leave: Option<oneshot::Sender<()>>,
) -> Result<Result<Response<RecvStream>, h2::Error>, String> {
    let (mut interim, mut leave) = (0, leave);
    let answer = poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
            let Some((status, fields)) = plan.interim.get(interim) else {
                return Poll::Ready(Err(format!("an interim answer too many: {early:?}")));
            };
            if early.status().as_u16() != *status {
                return Poll::Ready(Err(format!("interim {} instead of {status}", early.status())));
            }
            if let Err(why) = alike(early.headers(), fields, "interim") {
                return Poll::Ready(Err(why));
            }
            interim += 1;
            if *status == 100
                && let Some(leave) = leave.take()
            {
                leave.send(()).ok();
            }
        }
        Pin::new(&mut *response).poll(cx).map(Ok)
    });
    let mut answer = timeout(PATIENCE, answer).await.map_err(|_| "no answer came".to_owned())??;
    let settled = plan.reset.is_none_or(|reset| reset.settled);
    if let Ok(answer) = &mut answer {
        if answer.status().as_u16() != plan.status {
            let said = timeout(PATIENCE, answer.body_mut().data()).await;
            return Err(format!("{} instead of {}: {said:?}", answer.status(), plan.status));
        }
        if interim != plan.interim.len() {
            return Err(format!("{interim} interim answers instead of {}", plan.interim.len()));
        }
        alike(answer.headers(), &plan.answer, "the answer's fields")?;
        if settled {
            ended(answer.body().is_end_stream(), &plan.down, "the answer")?;
        }
        plan.progress.at_agent.send_modify(|at| *at += 1);
    }
    Ok(answer)
}

/// The agent's side; false where a leaving origin did not take it.
pub(super) async fn ask(plan: &Plan, sender: &mut client::SendRequest<Bytes>) -> Result<bool, String> {
    let sent = sender.send_request(plan.request(), plan.up.end == End::Head);
    let (mut response, mut to) = sent.map_err(|error| format!("asking: {error}"))?;
    let mut cuts = Random::new(plan.id);
    let untaken =
        |error: &h2::Error| error.reason() == Some(Reason::REFUSED_STREAM) && !plan.progress.is_begun();
    let at = &plan.progress.at_agent;
    let Some(reset) = plan.reset else {
        let (leave, may) = oneshot::channel();
        let mut reader = cuts.clone();
        let reading = async {
            let answer = match answered(&mut response, plan, Some(leave)).await? {
                Ok(answer) => answer,
                Err(error) if untaken(&error) => return Ok(false),
                Err(error) => return Err(format!("instead of an answer: {error}")),
            };
            whole(&read(answer.into_body(), at, &mut reader, usize::MAX).await?, &plan.down, "the answer")?;
            Ok(true)
        };
        let sending = async {
            if plan.waits && may.await.is_err() {
                return true;
            }
            plan.up.end == End::Head || send(&mut to, &plan.up, None, &mut cuts).await
        };
        let (read, sent) = tokio::join!(reading, sending);
        return match (read, sent) {
            (Ok(true), false) => Err("the request was not taken".to_owned()),
            (read, _) => read,
        };
    };
    let mut reader = cuts.clone();
    let sending = async {
        if plan.up.end != End::Head {
            send(&mut to, &plan.up, Some(reset.sends), &mut cuts).await;
        }
    };
    match reset.by {
        By::Agent { answered: answers } => {
            let reading = async {
                if !reset.settled {
                    return Ok(Some(None));
                }
                if !answers {
                    return tokio::select! {
                        at_origin = arrived(&plan.progress.at_origin, 1) => at_origin.map(|()| Some(None)),
                        answer = &mut response => match answer {
                            Err(error) if untaken(&error) => Ok(None),
                            other => Err(format!("instead of nothing: {other:?}")),
                        },
                    };
                }
                let answer = match answered(&mut response, plan, None).await? {
                    Ok(answer) => answer,
                    Err(error) if untaken(&error) => return Ok(None),
                    Err(error) => return Err(format!("instead of an answer: {error}")),
                };
                let mut body = answer.into_body();
                let mut bytes = Vec::new();
                while bytes.len() < plan.down.length() {
                    let data = timeout(PATIENCE, body.data()).await.map_err(|_| "no answer's body")?;
                    let data = data.ok_or("the answer ended")?.map_err(|error| error.to_string())?;
                    bytes.extend_from_slice(&data);
                    body.flow_control().release_capacity(data.len()).map_err(|error| error.to_string())?;
                }
                same(&bytes, &plan.down.bytes(), "the answer")?;
                Ok(Some(Some(body)))
            };
            let (open, ()) = tokio::join!(reading, sending);
            let Some(open) = open? else { return Ok(false) };
            if reset.settled && plan.up.end != End::Head {
                arrived(&plan.progress.at_origin, 1 + reset.sends).await?;
            }
            to.send_reset(reset.reason);
            drop(open);
            Ok(true)
        }
        By::Origin(stage) => {
            let reading = async {
                let answer = match answered(&mut response, plan, None).await? {
                    Ok(answer) => answer,
                    Err(error) if untaken(&error) => return Ok(false),
                    Err(error) => {
                        let may = match stage {
                            Stage::Unanswered => true,
                            Stage::Amid(_) => !reset.settled,
                            Stage::Unwanted => false,
                        };
                        let right = error.reason() == Some(reset.reason) && error.is_reset();
                        let why = || format!("instead of an answer: {error}");
                        return if may && right { Ok(true) } else { Err(why()) };
                    }
                };
                let got = read(answer.into_body(), at, &mut reader, usize::MAX).await?;
                match stage {
                    Stage::Unanswered => return Err("an answer came".to_owned()),
                    Stage::Amid(length) => {
                        let exact = reset.settled.then_some(length);
                        cut(&got, &plan.down, exact, &[reset.reason], "the answer")?;
                    }
                    Stage::Unwanted => whole(&got, &plan.down, "the answer")?,
                }
                Ok(true)
            };
            let read = {
                // What is sent need not be taken.
                let (mut sending, mut reading) = (pin!(sending), pin!(reading));
                tokio::select! {
                    biased;
                    read = &mut reading => read,
                    () = &mut sending => reading.await,
                }?
            };
            if read && matches!(stage, Stage::Unwanted) {
                reset_of(poll_fn(|cx| to.poll_reset(cx)), &[reset.reason]).await?;
            }
            Ok(read)
        }
    }
}
