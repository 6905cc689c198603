"""cs-scheduler: emits invocations on schedules. `leading` tells which shards are ours, `ticks` what a tick becomes."""
