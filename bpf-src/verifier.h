/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What compiler and verifier have to be told. */
#pragma once

/*
 * A global function: the verifier looks at it once, knowing nothing of its arguments, instead of at each call (kernel 5.6).
 * It returns a number. What its pointers point to is plain memory, which kernels before 6.2 do not take for the key of a map: the
 * leaf functions of maps.h do.
 */
#define GLOBAL __attribute__((noinline))

/* The compiler keeps no value over this line. */
#define barrier() asm volatile("" ::: "memory")
