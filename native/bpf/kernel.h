// What a BPF program has of the kernel: helpers by their number in linux/bpf.h, and little else.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/// A map; whoever loads the program puts its descriptor in.
struct Map;

/// A number that whoever loads the program puts in, as if it had been written there: the address of a symbol that
/// nobody defines stands for it.
#define CONSTANT(name) ((__u32)(long)&(name))

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "compile with -target bpfel");
#define HTONS(value) ((__u16)__builtin_bswap16(value))
#define HTONL(value) ((__u32)__builtin_bswap32(value))
#define NTOHS(value) HTONS(value)

static void* (*const bpf_map_lookup_elem)(struct Map*, const void*) = (void*)BPF_FUNC_map_lookup_elem;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void*)BPF_FUNC_get_smp_processor_id;
static __u64 (*const bpf_ktime_get_coarse_ns)(void) = (void*)BPF_FUNC_ktime_get_coarse_ns;
static long (*const bpf_skb_load_bytes)(const void*, __u32, void*, __u32) = (void*)BPF_FUNC_skb_load_bytes;
static long (*const bpf_skb_store_bytes)(void*, __u32, const void*, __u32, __u64) = (void*)BPF_FUNC_skb_store_bytes;
static long (*const bpf_skb_pull_data)(void*, __u32) = (void*)BPF_FUNC_skb_pull_data;
static long (*const bpf_skb_change_head)(void*, __u32, __u64) = (void*)BPF_FUNC_skb_change_head;
static long (*const bpf_skb_adjust_room)(void*, __s32, __u32, __u64) = (void*)BPF_FUNC_skb_adjust_room;
static long (*const bpf_csum_level)(void*, __u64) = (void*)BPF_FUNC_csum_level;
static long (*const bpf_redirect)(__u32, __u64) = (void*)BPF_FUNC_redirect;
static long (*const bpf_redirect_neigh)(__u32, void*, int, __u64) = (void*)BPF_FUNC_redirect_neigh;
static long (*const bpf_xdp_adjust_head)(void*, int) = (void*)BPF_FUNC_xdp_adjust_head;
static long (*const bpf_xdp_adjust_meta)(void*, int) = (void*)BPF_FUNC_xdp_adjust_meta;
static __u64 (*const bpf_xdp_get_buff_len)(void*) = (void*)BPF_FUNC_xdp_get_buff_len;
