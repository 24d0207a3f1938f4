"""The life of a channel: its states, and the transitions between them.

At any time a channel is in one of five states::

             the join is accepted         an end is requested
    JOINING ---------------------> OPEN ---------------------> ENDING
      |  |                           |                           |  ^
      |  |                           | a handler crashes, the    |  |
      |  |                           | client leaves, `stop`     |  |
      |  |                           v                           |  |
      |  +-----------------------> ENDED <-----------------------+  |
      |    the join is refused       |     all events before the    |
      |    or crashes                |     end are handled          |
      |                              v                              |
      |                          FINISHED                           |
      |                                                             |
      +-------------------------------------------------------------+
        an end is requested: the client has gone, or has joined again

- JOINING: `Channel.join` is queued or running. Events of the client are queued behind it, and
  frames pushed by it are held until its reply.
- OPEN: the channel is subscribed to broadcasts, and handles events.
- ENDING: its presences have left, it receives no more events, and its changes are visible to
  nobody. Events queued before the end are still handled, for `GRACE` at most.
- ENDED: nothing is sent for the channel any more, but the reply to a join that was refused.
  Otherwise `terminate` is running.
- FINISHED: `terminate` has returned, and the mailbox is empty.
"""

from enum import Enum


class State(Enum):
    """The state of a channel; the module has their meaning and the transitions."""

    JOINING = "joining"
    OPEN = "open"
    ENDING = "ending"
    ENDED = "ended"
    FINISHED = "finished"


#: The states that may follow each state.
TRANSITIONS = {
    State.JOINING: (State.OPEN, State.ENDING, State.ENDED),
    State.OPEN: (State.ENDING, State.ENDED),
    State.ENDING: (State.ENDED,),
    State.ENDED: (State.FINISHED,),
    State.FINISHED: (),
}
