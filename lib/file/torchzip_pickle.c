/* SPDX-License-Identifier: MIT
 * A pickle machine that makes data and nothing else (the opcodes that torch.save emits, protocols 2 to 5).
 * Pass one decodes every opcode and counts; pass two runs with arrays that are then large enough. */
#include <string.h>

#include "name_impl.h"
#include "torchzip_impl.h"

/* ---- names --------------------------------------------------------------------------------------------- */

#define STORAGE(name, type)                                                                                  \
    {                                                                                                        \
        "torch", name "Storage", SONDE_ROLE_STORAGE, type, NULL                                              \
    }
#define DTYPE(name)                                                                                          \
    {                                                                                                        \
        "torch", name, SONDE_ROLE_DTYPE, SONDE_OPAQUE, "torch." name                                         \
    }
static const sonde_pick_global globals[] = {
    {"collections", "OrderedDict", SONDE_ROLE_DICT, SONDE_OPAQUE, NULL},
    {"torch._utils", "_rebuild_tensor_v2", SONDE_ROLE_TENSOR, SONDE_OPAQUE, NULL},
    {"torch._utils", "_rebuild_parameter", SONDE_ROLE_PARAMETER, SONDE_OPAQUE, NULL},
    {"torch", "Size", SONDE_ROLE_SIZE, SONDE_OPAQUE, NULL},
    {"torch", "device", SONDE_ROLE_DEVICE, SONDE_OPAQUE, NULL},
    STORAGE("Float", SONDE_F32),
    STORAGE("Half", SONDE_F16),
    STORAGE("BFloat16", SONDE_BF16),
    STORAGE("Double", SONDE_F64),
    STORAGE("Char", SONDE_I8),
    STORAGE("Byte", SONDE_U8),
    STORAGE("Short", SONDE_I16),
    STORAGE("Int", SONDE_I32),
    STORAGE("Long", SONDE_I64),
    STORAGE("Bool", SONDE_BOOL),
    DTYPE("float32"),
    DTYPE("float16"),
    DTYPE("bfloat16"),
    DTYPE("float64"),
    DTYPE("int8"),
    DTYPE("uint8"),
    DTYPE("int16"),
    DTYPE("int32"),
    DTYPE("int64"),
    DTYPE("bool"),
};

/* ---- opcodes ------------------------------------------------------------------------------------------- */

enum argument { NOTHING, BYTES_1, BYTES_2, BYTES_4, BYTES_8, TEXT_1, TEXT_4, TEXT_8, LONG_1, LINES };

struct opcode {
    enum argument argument;
    bool known, pushes, memoises, reduces;
};

#define PUSH .known = true, .pushes = true
static const struct opcode opcodes[256] = {
    [0x80] = {BYTES_1, .known = true},                   /* PROTO */
    [0x95] = {BYTES_8, .known = true},                   /* FRAME */
    ['.'] = {NOTHING, .known = true},                    /* STOP */
    ['('] = {NOTHING, PUSH},                             /* MARK */
    ['N'] = {NOTHING, PUSH},                             /* NONE */
    [0x88] = {NOTHING, PUSH},                            /* NEWTRUE */
    [0x89] = {NOTHING, PUSH},                            /* NEWFALSE */
    ['K'] = {BYTES_1, PUSH},                             /* BININT1 */
    ['M'] = {BYTES_2, PUSH},                             /* BININT2 */
    ['J'] = {BYTES_4, PUSH},                             /* BININT */
    [0x8a] = {LONG_1, PUSH},                             /* LONG1 */
    ['G'] = {BYTES_8, PUSH},                             /* BINFLOAT */
    [0x8c] = {TEXT_1, PUSH},                             /* SHORT_BINUNICODE */
    ['X'] = {TEXT_4, PUSH},                              /* BINUNICODE */
    [0x8d] = {TEXT_8, PUSH},                             /* BINUNICODE8 */
    [')'] = {NOTHING, PUSH},                             /* EMPTY_TUPLE */
    [']'] = {NOTHING, PUSH},                             /* EMPTY_LIST */
    ['}'] = {NOTHING, PUSH},                             /* EMPTY_DICT */
    ['t'] = {NOTHING, PUSH},                             /* TUPLE */
    [0x85] = {NOTHING, PUSH},                            /* TUPLE1 */
    [0x86] = {NOTHING, PUSH},                            /* TUPLE2 */
    [0x87] = {NOTHING, PUSH},                            /* TUPLE3 */
    ['a'] = {NOTHING, .known = true},                    /* APPEND */
    ['e'] = {NOTHING, .known = true},                    /* APPENDS */
    ['s'] = {NOTHING, .known = true},                    /* SETITEM */
    ['u'] = {NOTHING, .known = true},                    /* SETITEMS */
    ['b'] = {NOTHING, .known = true},                    /* BUILD */
    ['c'] = {LINES, PUSH},                               /* GLOBAL */
    [0x93] = {NOTHING, PUSH},                            /* STACK_GLOBAL */
    ['R'] = {NOTHING, PUSH, .reduces = true},            /* REDUCE */
    ['Q'] = {NOTHING, PUSH},                             /* BINPERSID */
    ['q'] = {BYTES_1, .known = true, .memoises = true},  /* BINPUT */
    ['r'] = {BYTES_4, .known = true, .memoises = true},  /* LONG_BINPUT */
    [0x94] = {NOTHING, .known = true, .memoises = true}, /* MEMOIZE */
    ['h'] = {BYTES_1, PUSH},                             /* BINGET */
    ['j'] = {BYTES_4, PUSH},                             /* LONG_BINGET */
    /* decoded, so that a class is refused by its name before what is done with it */
    [0x81] = {NOTHING, .known = true}, /* NEWOBJ */
    [0x92] = {NOTHING, .known = true}, /* NEWOBJ_EX */
    [0x8f] = {NOTHING, .known = true}, /* EMPTY_SET */
    [0x90] = {NOTHING, .known = true}, /* ADDITEMS */
    [0x91] = {NOTHING, .known = true}, /* FROZENSET */
    ['B'] = {TEXT_4, .known = true},   /* BINBYTES */
    ['C'] = {TEXT_1, .known = true},   /* SHORT_BINBYTES */
    ['0'] = {NOTHING, .known = true},  /* POP */
};

/* A decoded step: the opcode, its number, or its n bytes of text. */
struct step {
    unsigned char op;
    uint64_t number;
    const char *text;
    size_t n;
};

struct tape {
    const unsigned char *p, *end;
};

enum sonde_code sonde_pick_damaged(const sonde_pick *k, const char *what, sonde_err *err)
{
    return sonde_fail(err, SONDE_E_INPUT, "%s: data.pkl: %s", k->zip->map->path, what);
}

static bool number(struct tape *t, size_t n, uint64_t *out)
{
    *out = 0;
    if ((size_t)(t->end - t->p) < n)
        return false;
    memcpy(out, t->p, n);
    t->p += n;
    return true;
}

static bool text(struct tape *t, uint64_t n, struct step *s)
{
    if (n > (size_t)(t->end - t->p))
        return false;
    s->text = (const char *)t->p;
    s->n = (size_t)n;
    t->p += n;
    return true;
}

/* Two lines; both ends are kept in the text. */
static bool two_lines(struct tape *t, struct step *s)
{
    s->text = (const char *)t->p;
    for (int i = 0; i < 2; i++) {
        const unsigned char *end = t->p == t->end ? NULL : memchr(t->p, '\n', (size_t)(t->end - t->p));
        if (!end)
            return false;
        t->p = end + 1;
    }
    s->n = (size_t)(t->p - (const unsigned char *)s->text);
    return true;
}

static bool read_argument(struct tape *t, enum argument a, struct step *s)
{
    uint64_t n;
    switch (a) {
    case NOTHING:
        return true;
    case BYTES_1:
        return number(t, 1, &s->number);
    case BYTES_2:
        return number(t, 2, &s->number);
    case BYTES_4:
        return number(t, 4, &s->number);
    case BYTES_8:
        return number(t, 8, &s->number);
    case TEXT_1:
    case LONG_1:
        return number(t, 1, &n) && text(t, n, s);
    case TEXT_4:
        return number(t, 4, &n) && text(t, n, s);
    case TEXT_8:
        return number(t, 8, &n) && text(t, n, s);
    case LINES:
        return two_lines(t, s);
    }
    return false;
}

static enum sonde_code refuse(const sonde_pick *k, unsigned char op, sonde_err *err)
{
    return sonde_fail(
        err, SONDE_E_INPUT,
        "%s: data.pkl: opcode 0x%02x is none that tensors and plain values need; save a state_dict() "
        "instead",
        k->zip->map->path, op);
}

static enum sonde_code next(const sonde_pick *k, struct tape *t, struct step *s, sonde_err *err)
{
    if (t->p == t->end)
        return sonde_pick_damaged(k, "the pickle has no end", err);
    *s = (struct step){.op = *t->p++};
    if (!opcodes[s->op].known)
        return refuse(k, s->op, err);
    if (!read_argument(t, opcodes[s->op].argument, s))
        return sonde_pick_damaged(k, "the pickle is cut short", err);
    return SONDE_OK;
}

/* ---- the machine --------------------------------------------------------------------------------------- */

struct machine {
    sonde_pick *k;
    uint32_t *stack, *memo;
    uint32_t n_stack, n_memo, max_memo; /* n_memo: memoised so far, for MEMOIZE */
};

static enum sonde_code count(sonde_pick *k, const unsigned char *p, size_t n, sonde_arena *scratch,
                             struct machine *m, sonde_err *err)
{
    struct tape t = {p, p + n};
    struct step s = {.op = 0};
    size_t n_pushed = 0, n_put = 0, n_reduced = 0;
    while (s.op != '.') {
        enum sonde_code rc = next(k, &t, &s, err);
        if (rc != SONDE_OK)
            return rc;
        n_pushed += opcodes[s.op].pushes;
        n_put += opcodes[s.op].memoises;
        n_reduced += opcodes[s.op].reduces;
    }
    if (t.p != t.end)
        return sonde_pick_damaged(k, "there are bytes after the end of the pickle", err);
    m->k = k;
    m->max_memo = (uint32_t)n_put;
    m->stack = sonde_arena_get(scratch, n_pushed, sizeof *m->stack, err);
    m->memo = m->stack ? sonde_arena_get(scratch, n_put, sizeof *m->memo, err) : NULL;
    k->value = m->memo ? sonde_arena_get(scratch, n_pushed, sizeof *k->value, err) : NULL;
    k->cell = k->value ? sonde_arena_get(scratch, n_pushed, sizeof *k->cell, err) : NULL;
    k->tensor = k->cell ? sonde_arena_get(scratch, n_reduced, sizeof *k->tensor, err) : NULL;
    if (!k->tensor)
        return sonde_err_wrap(err, "%s", k->zip->map->path);
    for (size_t i = 0; i < n_put; i++)
        m->memo[i] = SONDE_PICK_END;
    return SONDE_OK;
}

/* Both arrays have room for every opcode that pushes. */
static sonde_pick_value *push(struct machine *m, enum sonde_pick_kind kind)
{
    sonde_pick *k = m->k;
    m->stack[m->n_stack++] = k->n_values;
    sonde_pick_value *v = &k->value[k->n_values++];
    *v = (sonde_pick_value){.kind = kind};
    if (kind == SONDE_PICK_TUPLE || kind == SONDE_PICK_LIST || kind == SONDE_PICK_DICT)
        v->u.items.first = v->u.items.last = SONDE_PICK_END;
    return v;
}

static void append(sonde_pick *k, sonde_pick_value *to, uint32_t key, uint32_t item)
{
    k->cell[k->n_cells] = (sonde_pick_cell){key, item, SONDE_PICK_END};
    if (to->n++)
        k->cell[to->u.items.last].next = k->n_cells;
    else
        to->u.items.first = k->n_cells;
    to->u.items.last = k->n_cells++;
}

static enum sonde_code shallow(const struct machine *m, sonde_err *err)
{
    return sonde_pick_damaged(m->k, "an opcode finds too little, or something else, on the stack", err);
}

/* Are there n values on the stack, none of them a mark? */
static bool has(const struct machine *m, uint32_t n)
{
    if (m->n_stack < n)
        return false;
    for (uint32_t i = 1; i <= n; i++)
        if (m->k->value[m->stack[m->n_stack - i]].kind == SONDE_PICK_MARK)
            return false;
    return true;
}

/* The topmost mark's place, below at least one value unless of_tuple. */
static bool find_mark(const struct machine *m, uint32_t *at)
{
    for (uint32_t i = m->n_stack; i-- > 0;)
        if (m->k->value[m->stack[i]].kind == SONDE_PICK_MARK) {
            *at = i;
            return true;
        }
    return false;
}

/* The n topmost values (and skip marks under them) become a tuple. */
static void make_tuple(struct machine *m, uint32_t from, uint32_t skip)
{
    uint32_t n = m->n_stack, at = m->k->n_values;
    sonde_pick_value t = {.kind = SONDE_PICK_TUPLE, .u.items = {SONDE_PICK_END, SONDE_PICK_END}};
    for (uint32_t i = from; i < n; i++)
        append(m->k, &t, SONDE_PICK_END, m->stack[i]);
    m->n_stack = from - skip;
    push(m, SONDE_PICK_TUPLE);
    m->k->value[at] = t;
}

static enum sonde_code put_items(struct machine *m, uint32_t from, bool marked, sonde_err *err)
{
    sonde_pick *k = m->k;
    uint32_t below = from - marked;
    if (below == 0)
        return shallow(m, err);
    sonde_pick_value *d = &k->value[m->stack[below - 1]];
    if (d->kind != SONDE_PICK_DICT || (m->n_stack - from) % 2)
        return shallow(m, err);
    for (uint32_t i = from; i < m->n_stack; i += 2) {
        uint32_t kind = k->value[m->stack[i]].kind;
        if (kind != SONDE_PICK_STRING && kind != SONDE_PICK_INT)
            return sonde_pick_damaged(k, "a dictionary has a key that is neither a string nor an integer",
                                      err);
        append(k, d, m->stack[i], m->stack[i + 1]);
    }
    m->n_stack = below;
    return SONDE_OK;
}

static enum sonde_code append_items(struct machine *m, uint32_t from, bool marked, sonde_err *err)
{
    uint32_t below = from - marked;
    if (below == 0)
        return shallow(m, err);
    sonde_pick_value *l = &m->k->value[m->stack[below - 1]];
    if (l->kind != SONDE_PICK_LIST)
        return shallow(m, err);
    for (uint32_t i = from; i < m->n_stack; i++)
        append(m->k, l, SONDE_PICK_END, m->stack[i]);
    m->n_stack = below;
    return SONDE_OK;
}

static enum sonde_code push_global(struct machine *m, const char *module, size_t n_module, const char *name,
                                   size_t n_name, sonde_err *err)
{
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
        const sonde_pick_global *g = &globals[i];
        if (strlen(g->module) == n_module && memcmp(g->module, module, n_module) == 0 &&
            strlen(g->name) == n_name && memcmp(g->name, name, n_name) == 0) {
            push(m, SONDE_PICK_GLOBAL)->u.global = g;
            return SONDE_OK;
        }
    }
    return sonde_fail(err, SONDE_E_INPUT,
                      "%s: data.pkl names '%.*s.%.*s', which is code and is not run; save a state_dict() of "
                      "tensors and plain values instead",
                      m->k->zip->map->path, (int)(n_module < 100 ? n_module : 100), module,
                      (int)(n_name < 100 ? n_name : 100), name);
}

static enum sonde_code stack_global(struct machine *m, sonde_err *err)
{
    if (!has(m, 2))
        return shallow(m, err);
    const sonde_pick_value *name = &m->k->value[m->stack[m->n_stack - 1]];
    const sonde_pick_value *module = &m->k->value[m->stack[m->n_stack - 2]];
    if (name->kind != SONDE_PICK_STRING || module->kind != SONDE_PICK_STRING)
        return shallow(m, err);
    m->n_stack -= 2;
    return push_global(m, module->u.s, module->n, name->u.s, name->n, err);
}

uint32_t sonde_pick_item(const sonde_pick *k, uint32_t of, uint32_t i)
{
    const sonde_pick_value *v = &k->value[of];
    if (i >= v->n)
        return SONDE_PICK_END;
    uint32_t c = v->u.items.first;
    while (i--)
        c = k->cell[c].next;
    return k->cell[c].item;
}

/* callable, arguments -> value */
static enum sonde_code reduce(struct machine *m, sonde_err *err)
{
    sonde_pick *k = m->k;
    if (!has(m, 2))
        return shallow(m, err);
    uint32_t args = m->stack[m->n_stack - 1];
    const sonde_pick_value *f = &k->value[m->stack[m->n_stack - 2]];
    if (f->kind != SONDE_PICK_GLOBAL || k->value[args].kind != SONDE_PICK_TUPLE)
        return shallow(m, err);
    m->n_stack -= 2;
    uint32_t first = sonde_pick_item(k, args, 0);
    uint32_t kind = first == SONDE_PICK_END ? SONDE_PICK_MARK : k->value[first].kind;
    enum sonde_pick_role role = f->u.global->role;
    if (role == SONDE_ROLE_DICT && k->value[args].n == 0) {
        push(m, SONDE_PICK_DICT);
        return SONDE_OK;
    }
    sonde_pick_value *v = push(m, SONDE_PICK_NONE);
    if (role == SONDE_ROLE_TENSOR)
        return sonde_pick_tensor(k, args, v, err);
    if ((role == SONDE_ROLE_PARAMETER && kind == SONDE_PICK_TENSOR) ||
        (role == SONDE_ROLE_SIZE && kind == SONDE_PICK_TUPLE) ||
        (role == SONDE_ROLE_DEVICE && kind == SONDE_PICK_STRING)) {
        *v = k->value[first];
        return SONDE_OK;
    }
    return sonde_fail(err, SONDE_E_INPUT, "%s: data.pkl calls %s.%s with arguments that are not read",
                      k->zip->map->path, f->u.global->module, f->u.global->name);
}

/* State that torch hangs on an OrderedDict (_metadata: versions of modules) is left out. */
static enum sonde_code build(struct machine *m, sonde_err *err)
{
    if (!has(m, 2) || m->k->value[m->stack[m->n_stack - 1]].kind != SONDE_PICK_DICT ||
        m->k->value[m->stack[m->n_stack - 2]].kind != SONDE_PICK_DICT)
        return shallow(m, err);
    m->n_stack--;
    return SONDE_OK;
}

static enum sonde_code persistent(struct machine *m, sonde_err *err)
{
    if (!has(m, 1))
        return shallow(m, err);
    uint32_t id = m->stack[--m->n_stack];
    return sonde_pick_storage(m->k, id, push(m, SONDE_PICK_STORAGE), err);
}

static enum sonde_code memoise(struct machine *m, uint64_t at, sonde_err *err)
{
    if (!has(m, 1))
        return shallow(m, err);
    if (at >= m->max_memo)
        return sonde_pick_damaged(m->k, "a memo number is larger than there are memos", err);
    m->memo[at] = m->stack[m->n_stack - 1];
    m->n_memo++;
    return SONDE_OK;
}

static enum sonde_code recall(struct machine *m, uint64_t at, sonde_err *err)
{
    if (at >= m->max_memo || m->memo[at] == SONDE_PICK_END)
        return sonde_pick_damaged(m->k, "a memo is read before it is written", err);
    m->stack[m->n_stack++] = m->memo[at];
    return SONDE_OK;
}

/* Little-endian two's complement of n bytes; beyond 64 bits a float. */
static void push_long(struct machine *m, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    bool negative = n && p[n - 1] & 0x80;
    if (n <= 8) {
        uint64_t u = negative ? UINT64_MAX : 0;
        memcpy(&u, p, n);
        int64_t i;
        memcpy(&i, &u, sizeof i);
        push(m, SONDE_PICK_INT)->u.i = i;
        return;
    }
    double f = negative ? -1 : 0;
    for (size_t i = n; i-- > 0;)
        f = f * 256 + p[i];
    push(m, SONDE_PICK_FLOAT)->u.f = f;
}

static void push_double(struct machine *m, uint64_t big_endian)
{
    uint64_t u = __builtin_bswap64(big_endian);
    memcpy(&push(m, SONDE_PICK_FLOAT)->u.f, &u, sizeof u);
}

static enum sonde_code push_text(struct machine *m, const struct step *s, sonde_err *err)
{
    if (s->n > UINT32_MAX || !sonde_utf8_ok(s->text, s->n))
        return sonde_pick_damaged(m->k, "a string is not UTF-8", err);
    sonde_pick_value *v = push(m, SONDE_PICK_STRING);
    v->u.s = s->text;
    v->n = (uint32_t)s->n;
    return SONDE_OK;
}

static enum sonde_code push_lines(struct machine *m, const struct step *s, sonde_err *err)
{
    const char *end = memchr(s->text, '\n', s->n);
    size_t n = (size_t)(end - s->text);
    return push_global(m, s->text, n, end + 1, s->n - n - 2, err);
}

static enum sonde_code containers(struct machine *m, const struct step *s, sonde_err *err)
{
    uint32_t at = 0;
    bool marked = s->op == 't' || s->op == 'e' || s->op == 'u';
    if (marked && !find_mark(m, &at))
        return sonde_pick_damaged(m->k, "a mark is missing", err);
    uint32_t n = s->op == 'a' || s->op == 0x85 ? 1 : s->op == 's' || s->op == 0x86 ? 2 : 3;
    if (!marked && !has(m, n))
        return shallow(m, err);
    uint32_t from = marked ? at + 1 : m->n_stack - n;
    if (s->op == 'a' || s->op == 'e')
        return append_items(m, from, marked, err);
    if (s->op == 's' || s->op == 'u')
        return put_items(m, from, marked, err);
    make_tuple(m, from, marked);
    return SONDE_OK;
}

static enum sonde_code push_plain(struct machine *m, const struct step *s, sonde_err *err)
{
    switch (s->op) {
    case '(':
        push(m, SONDE_PICK_MARK);
        return SONDE_OK;
    case 'N':
        push(m, SONDE_PICK_NONE);
        return SONDE_OK;
    case 0x88:
    case 0x89:
        push(m, SONDE_PICK_BOOL)->u.i = s->op == 0x88;
        return SONDE_OK;
    case 'K':
    case 'M':
        push(m, SONDE_PICK_INT)->u.i = (int64_t)s->number;
        return SONDE_OK;
    case 'J':
        push(m, SONDE_PICK_INT)->u.i = (int32_t)(uint32_t)s->number;
        return SONDE_OK;
    case 0x8a:
        push_long(m, s->text, s->n);
        return SONDE_OK;
    case 'G':
        push_double(m, s->number);
        return SONDE_OK;
    case ')':
        push(m, SONDE_PICK_TUPLE);
        return SONDE_OK;
    case ']':
        push(m, SONDE_PICK_LIST);
        return SONDE_OK;
    case '}':
        push(m, SONDE_PICK_DICT);
        return SONDE_OK;
    default:
        return push_text(m, s, err);
    }
}

static enum sonde_code execute(struct machine *m, const struct step *s, sonde_err *err)
{
    switch (s->op) {
    case 0x80:
        return s->number >= 2 && s->number <= 5
                   ? SONDE_OK
                   : sonde_pick_damaged(m->k, "the pickle has a protocol other than 2 to 5", err);
    case 0x95: /* frames are a hint */
    case '.':
        return SONDE_OK;
    case 'a':
    case 'e':
    case 's':
    case 'u':
    case 't':
    case 0x85:
    case 0x86:
    case 0x87:
        return containers(m, s, err);
    case 'b':
        return build(m, err);
    case 'c':
        return push_lines(m, s, err);
    case 0x93:
        return stack_global(m, err);
    case 'R':
        return reduce(m, err);
    case 'Q':
        return persistent(m, err);
    case 'q':
    case 'r':
        return memoise(m, s->number, err);
    case 0x94:
        return memoise(m, m->n_memo, err);
    case 'h':
    case 'j':
        return recall(m, s->number, err);
    default:
        return opcodes[s->op].pushes ? push_plain(m, s, err) : refuse(m->k, s->op, err);
    }
}

enum sonde_code sonde_pick_run(sonde_pick *k, const unsigned char *p, size_t n, sonde_arena *scratch,
                               sonde_err *err)
{
    struct machine m = {0};
    enum sonde_code rc = count(k, p, n, scratch, &m, err);
    struct tape t = {p, p + n};
    struct step s = {.op = 0};
    while (rc == SONDE_OK && s.op != '.') {
        rc = next(k, &t, &s, err);
        if (rc == SONDE_OK)
            rc = execute(&m, &s, err);
    }
    if (rc != SONDE_OK)
        return rc;
    if (m.n_stack != 1 || !has(&m, 1))
        return sonde_pick_damaged(k, "the pickle does not end with one value", err);
    k->root = m.stack[0];
    return SONDE_OK;
}
