"""A monitor of an API gateway: follows its custom resources, says what is wrong, and can put changes back.

An example of a program on top of Shoal's informers. `correlation` has the idea: deliveries in, findings out, without
I/O. `monitor` wires it to informers, `alerts` tells people, `rollback` writes, `demo` shows it all on the embedded
API server. ``README.md`` beside this file has the commands.
"""
