"""A fast training form of the Qwen3.5-MoE text model.

The mathematics and the parameter names are those of the Hugging Face class Qwen3_5MoeForCausalLM, so
a state dict moves between the two unchanged. Parameters live in a plain dict {name: fp32 tensor};
compute is bf16, the router fp32.

- Gated delta rule: chunked form on batched matmuls with a hand-written backward; gdn_torch is the
  plain reference.
- Experts: one autograd.Function around torch's grouped matmuls; tokens are sorted by expert, no atomics.
- Loss: linear and cross entropy in chunks, gradients are made in the forward pass.

Letters in shapes: B batch, S sequence, H hidden; nk, nv key and value heads of width dk, dv; C tokens
of a chunk, n chunks; E experts, K per token, T tokens of the batch.
"""

import math
import os

import torch
import torch.nn.functional as F

HAVE_COMPILE = hasattr(torch, "compile") and torch.cuda.is_available()


def comp(f):
    """f compiled, where that is possible and wanted."""
    return (
        torch.compile(f, dynamic=False) if HAVE_COMPILE and not os.environ.get("NO_COMPILE") else f
    )


# ----------------------------------------------------------------------------------- configuration
CONFIG = dict(
    architectures=["Qwen3_5MoeForCausalLM"],
    model_type="qwen3_5_moe_text",
    dtype="bfloat16",
    vocab_size=8192,
    hidden_size=320,
    num_hidden_layers=8,
    full_attention_interval=4,
    layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 2,
    num_attention_heads=8,
    num_key_value_heads=2,
    head_dim=64,
    attention_bias=False,
    attention_dropout=0.0,
    linear_num_key_heads=4,
    linear_num_value_heads=8,
    linear_key_head_dim=64,
    linear_value_head_dim=64,
    linear_conv_kernel_dim=4,
    num_experts=64,
    num_experts_per_tok=8,
    moe_intermediate_size=128,
    shared_expert_intermediate_size=128,
    hidden_act="silu",
    rms_norm_eps=1e-6,
    initializer_range=0.02,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
    router_aux_loss_coef=0.001,
    output_router_logits=False,
    rope_parameters=dict(
        rope_type="default",
        rope_theta=10000000.0,
        partial_rotary_factor=0.25,
        mrope_section=[3, 3, 2],
        mrope_interleaved=True,
    ),
    use_cache=True,
)


def init_params(c, device, seed=0):
    """-> {Hugging Face name: fp32 tensor that wants a gradient}; matrices before the residual start smaller"""
    g = torch.Generator(device="cpu").manual_seed(seed)
    H, E, I, SI, V = (
        c["hidden_size"],
        c["num_experts"],
        c["moe_intermediate_size"],
        c["shared_expert_intermediate_size"],
        c["vocab_size"],
    )
    nk, nv, dk, dv = (
        c["linear_num_key_heads"],
        c["linear_num_value_heads"],
        c["linear_key_head_dim"],
        c["linear_value_head_dim"],
    )
    NH, KV, D, K = (
        c["num_attention_heads"],
        c["num_key_value_heads"],
        c["head_dim"],
        c["linear_conv_kernel_dim"],
    )
    std = c["initializer_range"]
    out = std / math.sqrt(2 * c["num_hidden_layers"])
    P = {}

    def n(name, *s, std=std):
        P[name] = torch.randn(*s, generator=g) * std

    n("model.embed_tokens.weight", V, H)
    for i, t in enumerate(c["layer_types"]):
        p = f"model.layers.{i}."
        P[p + "input_layernorm.weight"] = torch.zeros(H)
        P[p + "post_attention_layernorm.weight"] = torch.zeros(H)
        if t == "linear_attention":
            q = p + "linear_attn."
            n(q + "in_proj_qkv.weight", 2 * nk * dk + nv * dv, H)
            n(q + "in_proj_z.weight", nv * dv, H)
            n(q + "in_proj_b.weight", nv, H)
            n(q + "in_proj_a.weight", nv, H)
            P[q + "conv1d.weight"] = (
                torch.rand(2 * nk * dk + nv * dv, 1, K, generator=g) * 2 - 1
            ) / math.sqrt(K)
            P[q + "dt_bias"] = torch.log(
                torch.expm1(
                    torch.exp(
                        torch.rand(nv, generator=g) * (math.log(0.1) - math.log(0.001))
                        + math.log(0.001)
                    )
                )
            )
            P[q + "A_log"] = torch.log(torch.rand(nv, generator=g) * 15 + 1)
            P[q + "norm.weight"] = torch.ones(dv)
            n(q + "out_proj.weight", H, nv * dv, std=out)
        else:
            q = p + "self_attn."
            n(q + "q_proj.weight", NH * D * 2, H)
            n(q + "k_proj.weight", KV * D, H)
            n(q + "v_proj.weight", KV * D, H)
            n(q + "o_proj.weight", H, NH * D, std=out)
            P[q + "q_norm.weight"] = torch.zeros(D)
            P[q + "k_norm.weight"] = torch.zeros(D)
        m = p + "mlp."
        n(m + "gate.weight", E, H)
        n(m + "experts.gate_up_proj", E, 2 * I, H)
        n(m + "experts.down_proj", E, H, I, std=out)
        n(m + "shared_expert.gate_proj.weight", SI, H)
        n(m + "shared_expert.up_proj.weight", SI, H)
        n(m + "shared_expert.down_proj.weight", H, SI, std=out)
        n(m + "shared_expert_gate.weight", 1, H)
    P["model.norm.weight"] = torch.zeros(H)
    if not c["tie_word_embeddings"]:
        n("lm_head.weight", V, H)
    return {k: v.to(device).requires_grad_() for k, v in P.items()}


def count(P, c):
    """Numbers of parameters: all, in experts, used for a token."""
    total = sum(v.numel() for v in P.values())
    ex = sum(v.numel() for k, v in P.items() if ".experts." in k)
    active = total - ex + ex * c["num_experts_per_tok"] // c["num_experts"]
    return dict(
        total=total,
        experts=ex,
        active=active,
        active_without_embedding=active - P["model.embed_tokens.weight"].numel(),
    )


# ------------------------------------------------------------------------------------------ pieces
def rms(x, w, eps):
    """RMSNorm with a zero-centred weight: times (1 + w)."""
    f = x.float()
    f = f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps)
    return (f * (1.0 + w.float())).to(x.dtype)


def gdn_pre(x, ln, wqkv, wz, wb, wa, conv, A_log, dt_bias, nk, dk, nv, dv, eps):
    """Norm, projections, convolution and gates -> q, k [B, S, nk, dk], v [B, S, nv, dv], g, beta
    [B, S, nv], z [B, S, nv, dv]"""
    B, S, _ = x.shape
    h = rms(x, ln, eps)
    qkv = F.linear(h, wqkv)
    z = F.linear(h, wz)
    beta = F.linear(h, wb).float().sigmoid()
    g = -A_log.float().exp() * F.softplus(F.linear(h, wa).float() + dt_bias.float())
    K = conv.shape[-1]
    xp = F.pad(qkv, (0, 0, K - 1, 0))
    w = conv[:, 0]
    y = xp[:, 0:S] * w[:, 0]
    for j in range(1, K):
        y = y + xp[:, j : j + S] * w[:, j]
    y = F.silu(y)
    q, k, v = y.split([nk * dk, nk * dk, nv * dv], -1)
    return (
        q.reshape(B, S, nk, dk),
        k.reshape(B, S, nk, dk),
        v.reshape(B, S, nv, dv),
        g,
        beta,
        z.reshape(B, S, nv, dv),
    )


def gdn_post(x, o, z, nw, wo, eps):
    """x + the gated norm of o, projected back."""
    B, S, _ = x.shape
    f = o.float()
    f = f * torch.rsqrt(f.pow(2).mean(-1, keepdim=True) + eps)
    f = nw * f.to(o.dtype)
    f = (f * F.silu(z.float())).to(x.dtype).reshape(B, S, -1)
    return x + F.linear(f, wo)


def gdn_torch(q, k, v, g, beta, C=64):
    """Chunked gated delta rule in plain PyTorch, fp32; the reference of the fast form."""
    dt = q.dtype
    B, S, nv, dv = v.shape
    r = nv // q.shape[2]
    dk = q.shape[-1]
    q, k = (t.float() * torch.rsqrt(t.float().pow(2).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
    q, k = (t.repeat_interleave(r, 2) for t in (q * dk**-0.5, k))
    pad = (C - S % C) % C
    q, k, v, g, beta = (
        F.pad(t.float().transpose(1, 2), ((0, 0, 0, pad) if t.dim() == 4 else (0, pad)))
        for t in (q, k, v, g, beta)
    )
    n = (S + pad) // C
    q, k, v = (t.reshape(B, nv, n, C, -1) for t in (q, k, v))
    g, beta = (t.reshape(B, nv, n, C) for t in (g, beta))
    cs = g.cumsum(-1)
    mask = torch.ones(C, C, dtype=torch.bool, device=q.device).triu(1)
    dec = (cs.unsqueeze(-1) - cs.unsqueeze(-2)).masked_fill(mask, float("-inf")).exp()
    kb = k * beta.unsqueeze(-1)
    A = -((kb @ k.transpose(-1, -2)) * dec).tril(-1)
    T = unit_lower_inverse(A)
    u = T @ (v * beta.unsqueeze(-1))
    w = T @ (kb * cs.exp().unsqueeze(-1))
    att = (q @ k.transpose(-1, -2)) * dec
    qd = q * cs.exp().unsqueeze(-1)
    kd = k * (cs[..., -1:] - cs).exp().unsqueeze(-1)
    cd = cs[..., -1].exp()[..., None, None]
    st = torch.zeros(B, nv, dk, dv, device=q.device)
    outs = []
    for i in range(n):
        vn = u[:, :, i] - w[:, :, i] @ st
        outs.append(qd[:, :, i] @ st + att[:, :, i] @ vn)
        st = st * cd[:, :, i] + kd[:, :, i].transpose(-1, -2) @ vn
    o = torch.stack(outs, 2).reshape(B, nv, n * C, dv)[:, :, :S]
    return o.transpose(1, 2).to(dt)


# The gated delta rule for training is gdn_prepare (compiled, differentiated by autograd) and DeltaCore
# (backward written by hand). For a chunk of one head, with A strictly lower [C, C] and the state S:
#   T = (I - A)^-1,  u = T vb - (T kbe) S,  S' = cd S + kd^T u,  o = qs S + att u
def gdn_prepare(q, k, v, g, beta, C=64):
    """-> qs, kd, kbe, vb [n, B*nv, C, d] (bf16), att (bf16) and A (fp32) [n, B*nv, C, C], cd [n, B*nv]"""
    dt = q.dtype
    B, S, nv, dv = v.shape
    nk, dk = q.shape[2], q.shape[3]
    r = nv // nk
    n = S // C

    def ch(t, h):
        return t.reshape(B, n, C, h, -1).permute(1, 0, 3, 2, 4)  # [n, B, h, C, d]

    q, k = (t.float() * torch.rsqrt(t.float().pow(2).sum(-1, keepdim=True) + 1e-6) for t in (q, k))
    q, k = ch(q * dk**-0.5, nk).contiguous(), ch(k, nk).contiguous()
    v = ch(v, nv)
    g, beta = ch(g.float(), nv)[..., 0], ch(beta.float(), nv)[..., 0]  # [n, B, nv, C]
    cs = g.cumsum(-1)
    e = cs.exp()
    last = cs[..., -1:]
    kk = (k.reshape(-1, C, dk) @ k.reshape(-1, C, dk).transpose(1, 2)).reshape(n, B, nk, 1, C, C)
    qk = (q.reshape(-1, C, dk) @ k.reshape(-1, C, dk).transpose(1, 2)).reshape(n, B, nk, 1, C, C)
    i = torch.arange(C, device=q.device)
    low = i[:, None] >= i[None, :]
    strict = i[:, None] > i[None, :]
    diff = torch.where(
        low, cs.unsqueeze(-1) - cs.unsqueeze(-2), torch.zeros_like(cs[..., :1].unsqueeze(-1))
    )
    dec = torch.where(low, diff.exp(), torch.zeros_like(diff)).reshape(n, B, nk, r, C, C)
    bt = beta.reshape(n, B, nk, r, C, 1)
    A = torch.where(strict, -(kk * dec * bt), torch.zeros_like(dec)).reshape(n, B * nv, C, C)
    att = (qk * dec).to(dt).reshape(n, B * nv, C, C)

    def x(t):
        return t.unsqueeze(3)

    def s(t):
        return t.reshape(n, B, nk, r, C, 1)

    qs = (x(q) * s(e)).to(dt).reshape(n, B * nv, C, dk)
    kd = (x(k) * s((last - cs).exp())).to(dt).reshape(n, B * nv, C, dk)
    kbe = (x(k) * (bt * s(e))).to(dt).reshape(n, B * nv, C, dk)
    vb = (v.float() * beta.unsqueeze(-1)).to(dt).reshape(n, B * nv, C, dv)
    return qs, kd, kbe, vb, A, att, last[..., 0].exp().reshape(n, B * nv)


def unit_lower_inverse(A):
    """(I - A)^-1 for strictly lower A. By forward substitution: repeated squaring of the whole tile
    cancels badly when keys repeat."""
    I = torch.eye(A.shape[-1], device=A.device, dtype=A.dtype)
    return torch.linalg.solve_triangular(I - A, I.expand_as(A), upper=False, unitriangular=True)


class DeltaCore(torch.autograd.Function):
    """The recurrence over chunks; inputs as gdn_prepare makes them, output o [n, N, C, dv], N = B nv."""

    @staticmethod
    def forward(ctx, qs, kd, kbe, vb, A, att, cd):
        n, N, C, dk = qs.shape
        dv = vb.shape[-1]
        dt = qs.dtype

        def f(t):
            return t.reshape(n * N, *t.shape[2:])

        T = INVERSE(f(A)).to(dt)
        u = (T @ f(vb)).view(n, N, C, dv)
        w = (T @ f(kbe)).view(n, N, C, dk)
        S = torch.zeros(N, dk, dv, dtype=torch.float32, device=qs.device)
        Sb = torch.empty(n, N, dk, dv, dtype=dt, device=qs.device)
        c3 = cd[..., None, None]
        for i in range(n):
            Sb[i] = S
            u[i].baddbmm_(w[i], Sb[i], alpha=-1)
            if i + 1 < n:
                S = torch.addcmul(
                    (
                        (kd[i].transpose(1, 2) @ u[i]).float()
                        if dt == torch.float32
                        else kd[i].transpose(1, 2) @ u[i]
                    ),
                    S,
                    c3[i],
                )
        o = torch.baddbmm(f(att) @ f(u), f(qs), f(Sb)).view(n, N, C, dv)
        ctx.save_for_backward(qs, kd, kbe, vb, att, cd, T, u, w, Sb)
        return o

    @staticmethod
    def backward(ctx, do):
        qs, kd, kbe, vb, att, cd, T, u, w, Sb = ctx.saved_tensors
        n, N, C, dk = qs.shape
        dv = vb.shape[-1]

        def f(t):
            return t.reshape(n * N, *t.shape[2:])

        c3 = cd[..., None, None]
        do = do.contiguous()
        datt = f(do) @ f(u).transpose(1, 2)
        dqs = f(do) @ f(Sb).transpose(1, 2)
        du = (f(att).transpose(1, 2) @ f(do)).view(n, N, C, dv)
        dSo = (f(qs).transpose(1, 2) @ f(do)).view(n, N, dk, dv)
        G = torch.zeros(N, dk, dv, dtype=torch.float32, device=qs.device)
        Gb = torch.empty_like(Sb)
        for i in range(n - 1, -1, -1):  # G: gradient of the state after chunk i
            Gb[i] = G
            du[i].baddbmm_(kd[i], Gb[i])
            if i:
                G = torch.addcmul(
                    torch.baddbmm(dSo[i], w[i].transpose(1, 2), du[i], alpha=-1), G, c3[i]
                )
        dkd = f(u) @ f(Gb).transpose(1, 2)
        dw = (f(du) @ f(Sb).transpose(1, 2)).neg_()
        dcd = K_["dot_last2"](Sb, Gb)
        dT = torch.baddbmm(f(du) @ f(vb).transpose(1, 2), dw, f(kbe).transpose(1, 2))
        Tt = T.transpose(1, 2)
        dvb = Tt @ f(du)
        dkbe = Tt @ dw
        dA = (Tt @ dT) @ Tt

        def v(t, d):
            return t.view(n, N, C, d)

        return v(dqs, dk), v(dkd, dk), v(dkbe, dk), v(dvb, dv), v(dA, C).float(), v(datt, C), dcd


def dot_last2(a, b):
    """Sum of products over the last two axes."""
    return (a.float() * b.float()).sum((-1, -2))


def unchunk(o, B, nv):
    """[n, B nv, C, d] -> [B, S, nv, d]"""
    n, N, C, d = o.shape
    return o.view(n, B, nv, C, d).permute(1, 0, 3, 2, 4).reshape(B, n * C, nv, d)


def gdn_fast(q, k, v, g, beta):
    """The delta rule for training; S must be a multiple of the chunk."""
    return K_["unchunk"](
        DeltaCore.apply(*K_["gdn_prepare"](q, k, v, g, beta)), v.shape[0], v.shape[2]
    )


INVERSE = unit_lower_inverse


def use_triton_inverse(device="cuda"):
    """Replaces INVERSE by one Triton kernel that keeps the 64 x 64 tile in registers, if it agrees with
    the plain version, also where keys repeat."""
    global INVERSE
    try:
        from _inverse_kernel import inverse_kernel

        def inv(A):
            T = torch.empty(A.shape, dtype=torch.bfloat16, device=A.device)
            inverse_kernel[(A.shape[0],)](A.contiguous(), T, num_warps=4)
            return T

        A = (torch.randn(300, 64, 64, device=device) * 0.15).tril(-1)
        A[:100] = -torch.rand(100, 1, 1, device=device) * torch.ones(64, 64, device=device).tril(-1)
        ref = unit_lower_inverse(A.double()).float()
        e = (inv(A).float() - ref).flatten(1).norm(dim=1) / ref.flatten(1).norm(dim=1)
        err = e.max().item()
        print("triton inverse error", err, flush=True)
        if err < 5e-3:
            INVERSE = inv
    except Exception as e:
        print("no triton inverse:", repr(e)[:300], flush=True)


def rope_tables(c, S, device):
    """-> cos, sin [S, rotary width], the frequencies twice, for text positions 0 .. S-1"""
    rp = c["rope_parameters"]
    d = int(c["head_dim"] * rp["partial_rotary_factor"])
    inv = 1.0 / (
        rp["rope_theta"] ** (torch.arange(0, d, 2, dtype=torch.float32, device=device) / d)
    )
    f = torch.arange(S, dtype=torch.float32, device=device)[:, None] * inv[None]
    f = torch.cat([f, f], -1)
    return f.cos(), f.sin()


def rope(x, cos, sin):
    """Rotates the first cos.shape[-1] components of the last axis; i is paired with i + half."""
    d = cos.shape[-1]
    r, p = x[..., :d], x[..., d:]
    rot = torch.cat([-r[..., d // 2 :], r[..., : d // 2]], -1)
    return torch.cat([r * cos + rot * sin, p], -1)


def attn_block(x, ln, wq, wk, wv, wo, qn, kn, cos, sin, NH, KV, D, eps):
    """x + gated full attention over text positions 0 .. S-1."""
    B, S, _ = x.shape
    h = rms(x, ln, eps)
    q, gate = F.linear(h, wq).view(B, S, NH, 2 * D).chunk(2, -1)
    q = rms(q, qn, eps).transpose(1, 2)
    k = rms(F.linear(h, wk).view(B, S, KV, D), kn, eps).transpose(1, 2)
    v = F.linear(h, wv).view(B, S, KV, D).transpose(1, 2)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    q, k = rope(q, cos, sin), rope(k, cos, sin)
    k, v = k.repeat_interleave(NH // KV, 1), v.repeat_interleave(NH // KV, 1)
    o = (
        F.scaled_dot_product_attention(q, k, v, is_causal=True)
        if hasattr(F, "scaled_dot_product_attention")
        else torch.softmax(
            (q @ k.transpose(-1, -2)) * D**-0.5
            + torch.full((S, S), float("-inf"), device=x.device).triu(1),
            -1,
        )
        @ v
    )
    o = o.transpose(1, 2).reshape(B, S, NH * D) * torch.sigmoid(gate.reshape(B, S, NH * D))
    return x + F.linear(o, wo)


def moe_pre(x, ln, wr, sg, su, sd, sgate, K, eps):
    """Router and shared expert -> normed x [T, H], weights and ids [T, K], mean probabilities [E],
    mean squared log-sum-exp of the router's logits, x + shared expert"""
    H = x.shape[-1]
    h = rms(x, ln, eps).reshape(-1, H)
    logits = F.linear(h.float(), wr.float())
    probs = logits.softmax(-1)
    topv, topi = probs.topk(K, -1)
    topv = topv / topv.sum(-1, keepdim=True)
    shared = F.linear(F.silu(F.linear(h, sg)) * F.linear(h, su), sd) * torch.sigmoid(
        F.linear(h, sgate)
    )
    return h, topv, topi, probs.mean(0), logits.logsumexp(-1).pow(2).mean(), x + shared.view_as(x)


def swiglu_fwd(h, w):
    """silu(gate) * up * w for rows [gate | up]."""
    a, b = h.float().chunk(2, -1)
    return (F.silu(a) * b * w[:, None]).to(h.dtype)


def swiglu_bwd(ga, h, w):
    """Gradients of swiglu_fwd towards its rows and towards w."""
    a, b = h.float().chunk(2, -1)
    ga = ga.float()
    s = torch.sigmoid(a)
    silu = a * s
    gw = (ga * silu * b).sum(-1)
    ga = ga * w[:, None]
    return torch.cat([ga * b * (s * (1 + a * (1 - s))), ga * silu], -1).to(h.dtype), gw


def gather_sum(y, inv):
    """Adds the K rows of each token; inv [T, K] tells where they are."""
    return y[inv].float().sum(1).to(y.dtype)


def grouped_mm(a, b, offs):
    """2D x 3D: rows of a in group e times b[e]. 2D x 2D: a[:, group] @ b[group], stacked over groups.
    offs [E] are the ends of the groups."""
    if a.is_cuda:
        return torch._grouped_mm(a, b, offs=offs)
    o = [0] + offs.tolist()
    r = range(len(o) - 1)
    if b.dim() == 3:
        return torch.cat([a[o[i] : o[i + 1]] @ b[i] for i in r])
    return torch.stack([a[:, o[i] : o[i + 1]] @ b[o[i] : o[i + 1]] for i in r])


K_ = {}  # compiled pieces, filled by compile_pieces()


def compile_pieces():
    """Must be called once before hidden()."""
    for f in (
        gdn_prepare,
        dot_last2,
        unchunk,
        gdn_pre,
        gdn_post,
        attn_block,
        moe_pre,
        swiglu_fwd,
        swiglu_bwd,
        gather_sum,
        ce_chunk,
        gdn_torch,
    ):
        K_[f.__name__] = comp(f)


class Experts(torch.autograd.Function):
    """out[t] = sum_k topw[t,k] * down[e] (silu(gate[e] x_t) * up[e] x_t),  e = topi[t,k]"""

    @staticmethod
    def forward(ctx, h, topw, topi, w1, w2):
        T, K = topi.shape
        E = w1.shape[0]
        ids, order = topi.reshape(-1).to(torch.uint8 if E <= 256 else torch.int32).sort(stable=True)
        offs = torch.searchsorted(
            ids.to(torch.int32), torch.arange(1, E + 1, device=h.device, dtype=torch.int32)
        ).to(torch.int32)
        tok = torch.div(order, K, rounding_mode="floor")
        inv = torch.empty_like(order)
        inv[order] = torch.arange(T * K, device=h.device)
        inv = inv.view(T, K)
        ws = topw.reshape(-1)[order]
        xg = h.index_select(0, tok)
        u = grouped_mm(xg, w1.transpose(1, 2), offs)
        a = K_["swiglu_fwd"](u, ws)
        y = grouped_mm(a, w2.transpose(1, 2), offs)
        out = K_["gather_sum"](y, inv)
        ctx.save_for_backward(xg, u, a, ws, tok, inv, offs, w1, w2)
        ctx.mark_non_differentiable(offs)
        return out, offs

    @staticmethod
    def backward(ctx, go, _):
        xg, u, a, ws, tok, inv, offs, w1, w2 = ctx.saved_tensors
        gy = go.contiguous().index_select(0, tok)
        ga = grouped_mm(gy, w2, offs)
        gw2 = grouped_mm(gy.t(), a, offs)
        gu, gws = K_["swiglu_bwd"](ga, u, ws)
        gx = grouped_mm(gu, w1, offs)
        gw1 = grouped_mm(gu.t(), xg, offs)
        return K_["gather_sum"](gx, inv), gws[inv], None, gw1, gw2


def ce_chunk(logits, tgt, wt):
    """-> losses, gradient of sum(wt * loss) towards the logits"""
    f = logits.float()
    lse = f.logsumexp(-1, keepdim=True)
    hot = torch.arange(f.shape[1], device=f.device)[None] == tgt[:, None]
    nll = lse[:, 0] - torch.where(hot, f, torch.zeros_like(f)).sum(-1)
    return nll, ((f - lse).exp() - hot.float()).mul(wt[:, None]).to(logits.dtype)


class LinearCE(torch.autograd.Function):
    """sum_t wt[t] * cross_entropy(W h_t, tgt_t); also returns the unweighted per-token losses."""

    @staticmethod
    def forward(ctx, h, W, tgt, wt, chunk):
        gh = torch.empty_like(h)
        gW = torch.zeros(W.shape, dtype=torch.float32, device=W.device)
        nll = torch.empty(h.shape[0], dtype=torch.float32, device=h.device)
        for i in range(0, h.shape[0], chunk):
            s = slice(i, i + chunk)
            l, gl = K_["ce_chunk"](h[s] @ W.t(), tgt[s], wt[s])
            nll[s] = l
            gh[s] = gl @ W
            gW += gl.t() @ h[s]
        ctx.save_for_backward(gh, gW.to(W.dtype))
        ctx.mark_non_differentiable(nll)
        return (nll * wt).sum(), nll

    @staticmethod
    def backward(ctx, g, _):
        gh, gW = ctx.saved_tensors
        return gh * g.to(gh.dtype), gW * g.to(gW.dtype), None, None, None


# ------------------------------------------------------------------------------------------- model
def gated_delta(q, k, v, g, beta, impl):
    """impl: "fast" or "torch"; the fast form needs whole chunks."""
    if impl == "fast" and q.shape[1] % 64 == 0:
        return gdn_fast(q, k, v, g, beta)
    return K_["gdn_torch"](q, k, v, g, beta)


FP32 = (
    "gate.weight",
    "A_log",
    "dt_bias",
    "norm.weight",
    "layernorm.weight",
)  # never cast to bf16 in training


def cast(P, dtype):
    """The weights as the forward pass uses them."""
    return {
        k: (v if k.endswith(FP32) and not k.endswith("shared_expert_gate.weight") else v.to(dtype))
        for k, v in P.items()
    }


def hidden(P, c, ids, impl="fast", dtype=torch.bfloat16, stats=None, topk=None):
    """-> final hidden states [B, S, H], head, load-balancing loss, router z-loss

    stats, if a list, gets each layer's share of tokens per expert.
    """
    W = cast(P, dtype)
    eps = c["rms_norm_eps"]
    x = F.embedding(ids, W["model.embed_tokens.weight"])
    cos, sin = rope_tables(c, ids.shape[1], ids.device)
    aux = zl = 0.0
    for i, t in enumerate(c["layer_types"]):
        p = f"model.layers.{i}."

        def L(s):
            return W[p + s]

        if t == "linear_attention":
            q = "linear_attn."
            a = K_["gdn_pre"](
                x,
                L("input_layernorm.weight"),
                L(q + "in_proj_qkv.weight"),
                L(q + "in_proj_z.weight"),
                L(q + "in_proj_b.weight"),
                L(q + "in_proj_a.weight"),
                L(q + "conv1d.weight"),
                L(q + "A_log"),
                L(q + "dt_bias"),
                c["linear_num_key_heads"],
                c["linear_key_head_dim"],
                c["linear_num_value_heads"],
                c["linear_value_head_dim"],
                eps,
            )
            o = gated_delta(*a[:5], impl)
            x = K_["gdn_post"](x, o, a[5], L(q + "norm.weight"), L(q + "out_proj.weight"), eps)
        else:
            q = "self_attn."
            x = K_["attn_block"](
                x,
                L("input_layernorm.weight"),
                L(q + "q_proj.weight"),
                L(q + "k_proj.weight"),
                L(q + "v_proj.weight"),
                L(q + "o_proj.weight"),
                L(q + "q_norm.weight"),
                L(q + "k_norm.weight"),
                cos,
                sin,
                c["num_attention_heads"],
                c["num_key_value_heads"],
                c["head_dim"],
                eps,
            )
        m = "mlp."
        h, topv, topi, pm, z, r = K_["moe_pre"](
            x,
            L("post_attention_layernorm.weight"),
            L(m + "gate.weight"),
            L(m + "shared_expert.gate_proj.weight"),
            L(m + "shared_expert.up_proj.weight"),
            L(m + "shared_expert.down_proj.weight"),
            L(m + "shared_expert_gate.weight"),
            topk or c["num_experts_per_tok"],
            eps,
        )
        y, offs = Experts.apply(
            h, topv, topi, L(m + "experts.gate_up_proj"), L(m + "experts.down_proj")
        )
        x = r + y.view_as(r)
        frac = torch.diff(offs, prepend=offs.new_zeros(1)).float() / (h.shape[0] * topi.shape[1])
        aux = aux + c["num_experts"] * (frac * pm).sum()
        zl = zl + z
        if stats is not None:
            stats.append(frac.detach())
    n = len(c["layer_types"])
    return (
        rms(x, W["model.norm.weight"], eps),
        W.get("lm_head.weight", W["model.embed_tokens.weight"]),
        aux / n,
        zl / n,
    )
