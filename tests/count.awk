# SPDX-License-Identifier: MIT
# Count single tests in meson's log (testlog.txt): the lines that cmocka and tests/cli/harness.sh print. A program that ends badly
# without having reported a failure counts as one failed test, and so does a test that began and never ended. Programs that
# report no tests of their own count as one. Prints "P F S" and, on standard error, the names of the failed.
function failure(name) {
    failed++
    print "FAILED " program ": " name > "/dev/stderr"
}
function end_program() {
    if (program == "")
        return
    if (running != "")
        failure(running " (did not end)")
    else if (result ~ /^exit status 77/ || (result == "skip" && own == 0))
        skipped++
    else if (result !~ /^(exit status 0|ok|skip)/ && before == failed)
        failure("(" result ")")
    else if (own == 0)
        passed++
    program = running = ""
}
/^=+ +[0-9]+\/[0-9]+ +=+$/ { end_program(); own = 0; before = failed; result = "" ; next }
/^test: / { program = substr($0, index($0, $2)); next }
/^result: / { result = substr($0, index($0, $2)); next }
/^\[ RUN      \] / { if (running != "") failure(running " (did not end)"); running = $4; own++; next }
/^\[       OK \] / { if ($4 == running) { passed++; running = "" } next }
/^\[  SKIPPED \] / { if ($4 == running) { skipped++; running = "" } next }
/^\[  FAILED  \] / { if ($4 == running) { failure(running); running = "" } next }
/^\[  ERROR   \] / { next }
END { end_program(); print passed + 0, failed + 0, skipped + 0 }
