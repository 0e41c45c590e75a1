"""How a program of system calls lies in memory: the constants that its builder and its executor share.

A program is linked for one fixed address, like an old executable: every pointer in it is final, nobody relocates.
At BASE lies the header, then the rows (one system call each), then the data that rows point to.

    header  magic, first row, end of rows, the row that failed (0: none), clone_args, pidfd, 16 inputs
    row     u32 number, u32 mask, u64 argument[6], u16 forgiven[4], s64 result

Bit i of `mask` says that argument i is the address of a word that holds the argument: the result of an earlier row
(`openat` gives a descriptor, the next row mounts it) or an input that the executor's caller fills in. `forgiven` lists
the errnos that are no failure (ANY: none is). Lean: the zygote imports it.
"""

BASE = 0x10_0000_0000  # 64 GiB: far below shared libraries and stacks, far above a program at 4 MiB, also with 39 bits
MAGIC = 0x31_59_52_52_45_48_57  # "WHERRY1"
ROWS, END, FAILED, CLONE_ARGS, PIDFD, INPUTS = 8, 16, 24, 32, 120, 128
INPUT_COUNT = 16
HEADER_SIZE = INPUTS + 8 * INPUT_COUNT
CLONE_ARGS_SIZE = 88
ROW = "<II6Q4Hq"
ROW_SIZE = 72
RESULT = 64  # offset of a row's result
ANY = 0xFFFF
EXIT_FAILED = 126  # what a program's process exits with when a row failed; the truth is in the header
