/* SPDX-License-Identifier: MIT
 * Files of torch.save, spoilt in one place. The pickles are written with the letters of their opcodes;
 * {WORD} in `text` is a string, a digit behind K, q or h its byte, and a few letters stand for longer pieces
 * (see expand). */
#include "bad_files.h"
#include "file/torchzip.h"

static enum sonde_code open_file(const struct bytes *b, sonde_budget *budget, sonde_err *err)
{
    sonde_tensors *f = NULL;
    enum sonde_code rc = sonde_torchzip_parse(check_map(b->p, b->n), budget, &f, err);
    if (rc == SONDE_OK) {
        check_tensors(f, 1);
        sonde_tensors_close(f);
    }
    return rc;
}

static void put_string(struct bytes *b, const char *s, size_t n)
{
    put_text(b, "X");
    put_le(b, n, 4);
    put(b, s, n);
}

/* One letter of the shorthand that is not an opcode itself; false for others. */
static int expand(struct bytes *b, char c, uint64_t n)
{
    switch (c) {
    case 'P': /* the head of protocol 2 */
        put(b, "\x80\x02", 2);
        return 1;
    case 'O': /* an empty OrderedDict */
        put_text(b, "ccollections\nOrderedDict\n)R");
        return 1;
    case 'T': /* the function that makes tensors */
        put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n");
        return 1;
    case 'S': /* the storage data/0 of n floats */
        put_text(b, "(");
        put_string(b, "storage", 7);
        put_text(b, "ctorch\nFloatStorage\n");
        put_string(b, "0", 1);
        put_string(b, "cpu", 3);
        put_text(b, "J");
        put_le(b, n, 4);
        put_text(b, "tQ");
        return 1;
    case '1':
    case '2':
    case '3': /* TUPLE1 .. TUPLE3 */
        put_le(b, 0x85 + (uint64_t)(c - '1'), 1);
        return 1;
    case 'F':
        put_le(b, 0x89, 1);
        return 1;
    case '#': /* a number of eight bytes: n */
        put_le(b, 0x8a, 1);
        put_le(b, 8, 1);
        put_le(b, n, 8);
        return 1;
    case '^': /* a large negative number */
        put_le(b, 0x8a, 1);
        put_le(b, 8, 1);
        put_le(b, (uint64_t)-5, 8);
        return 1;
    default:
        return 0;
    }
}

/* Digits after K are its byte: "K6". {..}: a string. */
static void pickle(struct bytes *b, const char *s, uint64_t n)
{
    for (; *s; s++) {
        if (*s == '{') {
            const char *end = strchr(s, '}');
            put_string(b, s + 1, (size_t)(end - s - 1));
            s = end;
        } else if (*s == 'K' || *s == 'q' || *s == 'h') {
            put(b, s++, 1);
            put_le(b, (uint64_t)(*s - '0'), 1);
        } else if (*s == 'c') { /* as it is, with its two lines */
            const char *end = strchr(s, '\n');
            end = end ? strchr(end + 1, '\n') : NULL;
            put(b, s, end ? (size_t)(end + 1 - s) : strlen(s));
            s = end ? end : s + strlen(s) - 1;
        } else if (*s == '~') { /* an empty dictionary */
            put_text(b, "}");
        } else if (!expand(b, *s, n)) {
            put(b, s, 1);
        }
    }
}

/* The archive of pickle p and 6 floats as data/0. */
static void archive(struct bytes *b, const struct bytes *p, const char *pickle_name, const char *order,
                    int deflated, uint32_t bad_crc)
{
    static const float x[6] = {1, 2, 3, 4, 5, 6};
    struct zip z = {0};
    size_t local, central;
    zip_add(&z, pickle_name, p->p, p->n, deflated, NULL, NULL);
    zip_add(&z, "a/byteorder", order, strlen(order), 0, NULL, NULL);
    zip_add(&z, "a/data/0", x, sizeof x, 0, &local, &central);
    z.all.p[local + 14] ^= (unsigned char)bad_crc;
    z.dir.p[central + 16] ^= (unsigned char)bad_crc;
    zip_end(&z, "", NULL);
    put(b, z.all.p, z.all.n);
    zip_free(&z);
}

static void from_text(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0};
    pickle(&p, row->text, row->n);
    archive(b, &p, "a/data.pkl", "little", 0, 0);
    bytes_free(&p);
}

static void container(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0};
    pickle(&p,
           "PO({w}T(SK0K2K3"
           "2K3K1"
           "2F)tRu.",
           6);
    archive(b, &p, row->n == 1 ? "a/other.pkl" : "a/data.pkl", row->n == 2 ? "big" : "little", row->n == 3,
            row->n == 4);
    if (row->n == 5)
        memcpy(b->p, "\x80\x02}.", 4);
    bytes_free(&p);
}

/* n dictionaries in one another. */
static void nested(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0};
    pickle(&p, "P~", 0);
    for (uint64_t i = 1; i < row->n; i++)
        pickle(&p, "{k}~", 0);
    for (uint64_t i = 1; i < row->n; i++)
        pickle(&p, "s", 0);
    pickle(&p, ".", 0);
    archive(b, &p, "a/data.pkl", "little", 0, 0);
    bytes_free(&p);
}

/* Each of n lists holds the one before it ten times; the stack holds pairs of lists. */
static void laughs(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0};
    pickle(&p, "P](K1Neq0", 0);
    for (uint64_t i = 1; i < row->n; i++) {
        pickle(&p, "](", 0);
        for (int k = 0; k < 10; k++) {
            put_text(&p, "h");
            put_le(&p, i - 1, 1);
        }
        put_text(&p, "eq");
        put_le(&p, i, 1);
        pickle(&p, "2", 0);
    }
    put_text(&p, ".");
    archive(b, &p, "a/data.pkl", "little", 0, 0);
    bytes_free(&p);
}

/* A transposed tensor, rebuilt n times. */
static void many_copies(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0};
    pickle(&p, "PTq1(SK0K3K22K1K32F)tq0](", 6);
    for (uint64_t i = 0; i < row->n; i++)
        pickle(&p, "h1h0R", 0);
    pickle(&p, "e3.", 0);
    archive(b, &p, "a/data.pkl", "little", 0, 0);
    bytes_free(&p);
}

static void long_text(struct bytes *b, const struct bad_row *row)
{
    struct bytes p = {0}, s = {0};
    put_repeated(&s, 'k', row->n);
    pickle(&p, "P~", 0);
    put_string(&p, (const char *)s.p, s.n);
    pickle(&p, "K1s.", 0);
    archive(b, &p, "a/data.pkl", "little", 0, 0);
    bytes_free(&p);
    bytes_free(&s);
}

#define GOOD SONDE_OK
#define BAD  SONDE_E_INPUT
static const struct bad_row rows[] = {
    {"one_tensor", GOOD, from_text, "PO({w}T(SK0K2K32K3K12F)tRu.", 6},
    {"transposed", GOOD, from_text, "PO({w}T(SK0K3K22K1K32F)tRu.", 6},
    {"scalar_at_offset", GOOD, from_text, "PO({w}T(SK5))F)tRu.", 6},
    {"no_elements", GOOD, from_text, "PO({w}T(SK6K01K11F)tRu.", 6},
    {"tensor_alone", GOOD, from_text, "PT(SK0K61K11F)tR.", 6},
    {"parameter", GOOD, from_text, "P~{p}ctorch._utils\n_rebuild_parameter\nT(SK0K61K11F)tRFO3Rs.", 6},
    {"plain_values", GOOD, from_text,
     "P~({a}K1{b}{text}{c}F{d}N{e}](K1K2e{f}](K1{x}e{g})K7](NNe{h}#{i}ctorch\nSize\nK2K321R{j}"
     "ctorch\ndevice\n{cpu}1Ru.",
     1ull << 60},
    {"shared_storage", GOOD, from_text, "P~({a}T(Sq0K0K21K11F)tR{b}T(h0K2K21K21F)tRu.", 6},
    {"state_of_ordereddict", GOOD, from_text, "PO({w}T(SK0K61K11F)tRu~{_metadata}Osb.", 6},
    {"nothing", GOOD, from_text, "PO.", 0},

    {"storage_of_other_size", BAD, from_text, "PO({w}T(SK0K51K11F)tRu.", 5},
    {"storage_of_huge_size", BAD, from_text, "PO({w}T(SK0K51K11F)tRu.", 0x7fffffff},
    {"storage_of_negative_size", BAD, from_text, "PO({w}T(SK0K51K11F)tRu.", 0xffffffff},
    {"storage_that_is_missing", BAD, from_text,
     "P~{w}T(({storage}ctorch\nFloatStorage\n{1}{cpu}K6tQK0K61K11F)tRs.", 6},
    {"storage_key_with_a_path", BAD, from_text,
     "P~{w}T(({storage}ctorch\nFloatStorage\n{../../0}{cpu}K6tQK0K61K11F)tRs.", 6},
    {"storage_of_another_type", BAD, from_text,
     "P~{w}T(({storage}ctorch\nDoubleStorage\n{0}{cpu}K6tQK0K61K11F)tRs.", 6},
    {"storage_without_type", BAD, from_text, "P~{w}T(({storage}ctorch\nSize\n{0}{cpu}K6tQK0K61K11F)tRs.", 6},
    {"persistent_id_is_no_tuple", BAD, from_text, "P{0}Q.", 6},
    {"persistent_id_of_another_kind", BAD, from_text, "P({module}K1K1K1K1tQ.", 6},
    {"reaches_past_storage", BAD, from_text, "PO({w}T(SK1K2K32K3K12F)tRu.", 6},
    {"offset_past_storage", BAD, from_text, "PO({w}T(SK6))F)tRu.", 6},
    {"offset_past_storage_without_elements", BAD, from_text, "PO({w}T(SK7K01K11F)tRu.", 6},
    {"offset_negative", BAD, from_text, "PO({w}T(S^K21K11F)tRu.", 6},
    {"stride_negative", BAD, from_text, "PO({w}T(SK5K21^1F)tRu.", 6},
    {"stride_wraps", BAD, from_text, "PO({w}T(({storage}ctorch\nFloatStorage\n{0}{cpu}K6tQK0K31#1F)tRu.",
     1ull << 63 >> 1},
    {"size_wraps", BAD, from_text, "PO({w}T(({storage}ctorch\nFloatStorage\n{0}{cpu}K6tQK0##2K0K02F)tRu.",
     1ull << 32},
    {"expanded", BAD, from_text, "PO({w}T(({storage}ctorch\nFloatStorage\n{0}{cpu}K6tQK0#1K01F)tRu.",
     1ull << 40},
    {"overlapping_rows", BAD, from_text, "PO({w}T(SK0K2K32K1K12F)tRu.", 6},
    {"stride_of_another_rank", BAD, from_text, "PO({w}T(SK0K61)F)tRu.", 6},
    {"nine_dimensions", BAD, from_text, "PO({w}T(SK0(K1K1K1K1K1K1K1K1K1t(K1K1K1K1K1K1K1K1K1tF)tRu.", 6},
    {"size_is_a_list", BAD, from_text, "PO({w}T(SK0]K6aK11F)tRu.", 6},
    {"tensor_without_arguments", BAD, from_text, "PT)R.", 6},
    {"tensor_of_a_number", BAD, from_text, "PT(K1K0K61K11F)tR.", 6},
    {"copies_over_the_limit", SONDE_E_MEMORY, many_copies, "", 2000},
    {"a_few_copies", GOOD, many_copies, "", 3},

    {"global_of_code", BAD, from_text, "Pcposix\nsystem\n{id}1R.", 0},
    {"global_that_is_not_called", BAD, from_text, "Pcbuiltins\neval\n.", 0},
    {"global_without_end", BAD, from_text, "Pctorch\nSize", 0},
    {"call_of_a_string", BAD, from_text, "P{posix}{system}2R.", 0},
    {"call_of_a_dictionary", BAD, from_text, "P~)R.", 0},
    {"call_without_a_tuple", BAD, from_text, "Pccollections\nOrderedDict\n~R.", 0},
    {"ordereddict_of_items", BAD, from_text, "Pccollections\nOrderedDict\n]1R.", 0},
    {"call_of_a_storage_type", BAD, from_text, "Pctorch\nFloatStorage\nK11R.", 0},
    {"unknown_opcode", BAD, from_text, "PI1\n.", 0},
    {"empty_set", BAD, from_text, "P\x8f.", 0},
    {"new_object", BAD, from_text, "Pctorch\nSize\n)\x81.", 0},
    {"build_of_a_tuple", BAD, from_text, "P)~b.", 0},
    {"build_with_a_tuple", BAD, from_text, "P~)b.", 0},
    {"protocol_0", BAD, from_text,
     "\x80\x01"
     "~.",
     0},

    {"no_end", BAD, from_text, "P~", 0},
    {"bytes_after_the_end", BAD, from_text, "P~.~", 0},
    {"nothing_on_the_stack", BAD, from_text, "P.", 0},
    {"two_values", BAD, from_text, "P~~.", 0},
    {"a_mark_alone", BAD, from_text, "P(.", 0},
    {"a_number_alone", BAD, from_text, "PK1.", 0},
    {"append_to_nothing", BAD, from_text, "PK1a.", 0},
    {"append_to_a_dictionary", BAD, from_text, "P~K1a.", 0},
    {"appends_without_mark", BAD, from_text, "P]e.", 0},
    {"appends_to_nothing", BAD, from_text, "P(K1e.", 0},
    {"setitem_of_a_list", BAD, from_text, "P]K1K1s.", 0},
    {"setitems_odd", BAD, from_text, "P~(K1K1K1u.", 0},
    {"setitems_to_nothing", BAD, from_text, "P(K1K1u.", 0},
    {"key_is_a_tuple", BAD, from_text, "P~)K1s.", 0},
    {"tuple_without_mark", BAD, from_text, "PK1t.", 0},
    {"tuple_of_too_few", BAD, from_text, "PK13.", 0},
    {"tuple_over_a_mark", BAD, from_text, "PK1(K12.", 0},
    {"memo_of_nothing", BAD, from_text, "Pq0.", 0},
    {"memo_of_a_mark", BAD, from_text, "P(q0.", 0},
    {"memo_read_first", BAD, from_text, "Ph0q0.", 0},
    {"memo_out_of_range", BAD, from_text, "P~q5.", 0},
    {"memo_read_out_of_range", BAD, from_text, "P]q0h92.", 0},
    {"string_longer_than_the_rest", BAD, from_text, "P~X\xff\xff\xff\x7f.", 0},
    {"string_not_utf8", BAD, from_text, "P~{\xff}K1s.", 0},
    {"name_with_a_newline", BAD, from_text, "P~{a\nb}K1s.", 0},
    {"name_that_is_empty", BAD, from_text, "P~{}K1s.", 0},
    {"one_name_twice", BAD, from_text, "P~({a}T(Sq0K0K21K11F)tR{a}T(h0K0K21K11F)tRu.", 6},
    {"one_name_by_two_paths", BAD, from_text, "P~({a.b}K1{a}~{b}K2su.", 0},
    {"list_in_itself", BAD, from_text, "P]q0h0a.", 0},
    {"dictionary_in_itself", BAD, from_text, "P~q0{a}h0s.", 0},

    {"32_levels", GOOD, nested, "", 32},
    {"33_levels", BAD, nested, "", 33},
    {"100000_levels", BAD, nested, "", 100000},
    {"shared_lists_in_lists", BAD, laughs, "", 9},
    {"name_of_1024_bytes", GOOD, long_text, "", 1024},
    {"name_too_long", BAD, long_text, "", 1025},

    {"container", GOOD, container, "", 0},
    {"no_pickle", BAD, container, "", 1},
    {"big_endian", BAD, container, "", 2},
    {"compressed_pickle", BAD, container, "", 3},
    {"checksum_of_storage", BAD, container, "", 4},
    {"a_bare_pickle", BAD, container, "", 5},
};

const struct bad_format bad_format = {"torchzip", open_file, rows, sizeof rows / sizeof *rows, 0};
