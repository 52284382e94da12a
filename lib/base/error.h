/* SPDX-License-Identifier: MIT
 * Errors: a code and one line of text, written by the line that finds the fault. */
#ifndef SONDE_BASE_ERROR_H
#define SONDE_BASE_ERROR_H

/* The codes are also the exit statuses of the command line. */
enum sonde_code {
    SONDE_OK = 0,
    SONDE_E_DIFFERS = 1, /* a comparison asked for came out different */
    SONDE_E_USAGE = 2,   /* the caller broke the contract: a wrong option, shape or name */
    SONDE_E_INPUT = 3,   /* a file is malformed, truncated or of the wrong kind */
    SONDE_E_IO = 4,      /* the system refused: ENOSPC, EACCES, a short read */
    SONDE_E_MEMORY = 5,  /* out of memory, or over the memory limit */
    SONDE_E_NUMERIC = 6, /* NaN or infinity where a finite number is required */
    SONDE_E_STOPPED = 75 /* stopped by a signal; the state is saved and can be resumed */
};

typedef struct sonde_err {
    enum sonde_code code;
    char msg[480]; /* one line, no newline: "PATH: what is wrong, with both numbers; what to do" */
} sonde_err;

/* Record an error and return its code, so that a failing branch is one line:
 *     return sonde_fail(err, SONDE_E_INPUT, "%s: header says %zu bytes, the file has %zu", path, a, b);
 * err may be NULL when the caller wants only the code. Control characters from file data are
 * replaced by '?', so that a message is always one printable line. */
enum sonde_code sonde_fail(sonde_err *err, enum sonde_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* Put words in front of a recorded message ("loading gpt2: " + message) and return its code. */
enum sonde_code sonde_err_wrap(sonde_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

#endif
