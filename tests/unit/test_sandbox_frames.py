"""Frames are cut from a stream wherever it is split, and never grow past the limit."""

import pytest
from codesous.cell.v1.frames_pb2 import FromCell, Idle, LogLine
from hypothesis import given
from hypothesis import strategies as st

from cs_sandbox.frames import FrameBuffer, FrameError, encode


@given(st.lists(st.text(max_size=50), max_size=10), st.integers(1, 20))
def test_frames_survive_any_split(texts, step):
    frames = [FromCell(log=LogLine(run_id=1, message=text)) for text in texts]
    stream = b"".join(encode(frame) for frame in frames)
    buffer = FrameBuffer(1 << 20)
    found = [body for at in range(0, len(stream), step) for body in buffer.feed(stream[at : at + step])]
    assert [FromCell.FromString(body) for body in found] == frames


def test_a_length_over_the_limit_is_refused_before_its_body_comes():
    buffer = FrameBuffer(10)
    with pytest.raises(FrameError):
        list(buffer.feed((11).to_bytes(4, "big")))


def test_a_frame_of_the_limit_passes():
    frame = FromCell(idle=Idle(run_id=7))
    (body,) = FrameBuffer(frame.ByteSize()).feed(encode(frame))
    assert FromCell.FromString(body) == frame
