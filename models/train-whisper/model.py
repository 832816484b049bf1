"""Whisper architecture (parameter names as in OpenAI's checkpoints) with two training-only devices:

* compact vocabulary: rows for the domain's tokens + 5 control tokens + ONE shared row for every unused
  token (counted with its multiplicity in the softmax) + 1501 timestamp rows that are a linear map of the
  sinusoid positions;  `full_embedding` expands this to the ordinary 51864-row matrix for the export.
* an auxiliary per-frame phoneme head on the encoder (dropped at export).
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

N_VOCAB, EOT, SOT, PREV, NOSP, NOT, TS0 = 51864, 50256, 50257, 50360, 50361, 50362, 50363
CONTROL = [EOT, SOT, PREV, NOSP, NOT]


def sinusoids(n, d):
    """Whisper's fixed position embedding, [n, d]."""
    inc = math.log(10000) / (d // 2 - 1)
    t = torch.arange(n)[:, None] * torch.exp(-inc * torch.arange(d // 2))[None]
    return torch.cat([t.sin(), t.cos()], 1)


def gelu(x):
    """What ggml computes."""
    return F.gelu(x, approximate="tanh")  # what ggml computes


class Attention(nn.Module):
    """Multi-head attention, over itself or over the encoder's output."""

    def __init__(self, d, h):
        super().__init__()
        self.h = h
        self.query, self.key = nn.Linear(d, d), nn.Linear(d, d, bias=False)
        self.value, self.out = nn.Linear(d, d), nn.Linear(d, d)

    def split(self, x):
        """[batch, positions, d] to [batch, heads, positions, d / heads]."""
        return x.unflatten(-1, (self.h, -1)).transpose(1, 2)

    def forward(self, x, mem=None, causal=False, pad=0, want=False):
        """The result, and with `want` also the weights."""
        if mem is None:  # one cast and one product for query, key and value
            w = torch.cat([self.query.weight, self.key.weight, self.value.weight])
            b = torch.cat([self.query.bias, torch.zeros_like(self.query.bias), self.value.bias])
            q, k, v = (self.split(t) for t in F.linear(x, w, b).chunk(3, -1))
        else:
            q, (k, v) = (
                self.split(self.query(x)),
                (
                    self.split(t)
                    for t in F.linear(
                        mem,
                        torch.cat([self.key.weight, self.value.weight]),
                        torch.cat([torch.zeros_like(self.value.bias), self.value.bias]),
                    ).chunk(2, -1)
                ),
            )
        if (
            pad
        ):  # whisper.cpp's flash attention pads keys and values with zeros to a multiple of 256
            k, v = F.pad(k, (0, 0, 0, pad)), F.pad(v, (0, 0, 0, pad))
        if want:
            w = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).float().softmax(-1)
            o = w.to(v.dtype) @ v
        else:
            w, o = (
                None,
                F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=causal),
            )
        return self.out(o.transpose(1, 2).flatten(2)), w


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, d, h, cross):
        super().__init__()
        self.attn, self.attn_ln = Attention(d, h), nn.LayerNorm(d)
        if cross:
            self.cross_attn, self.cross_attn_ln = Attention(d, h), nn.LayerNorm(d)
        self.mlp = nn.Sequential(
            nn.Linear(d, 4 * d), nn.GELU(approximate="tanh"), nn.Linear(4 * d, d)
        )
        self.mlp_ln = nn.LayerNorm(d)

    def forward(self, x, mem=None, causal=False, pad=0, want=False):
        """The result, and with `want` also the cross attention's weights."""
        x = x + self.attn(self.attn_ln(x), causal=causal, pad=0 if causal else pad)[0]
        w = None
        if mem is not None:
            o, w = self.cross_attn(self.cross_attn_ln(x), mem, pad=pad, want=want)
            x = x + o
        return x + self.mlp(self.mlp_ln(x)), w


class Whisper(nn.Module):
    """Encoder and decoder."""

    def __init__(self, domain, n_phones, d=128, heads=4, enc=3, dec=3, n_mels=80, n_text_ctx=448):
        super().__init__()
        self.cfg = {
            "domain": list(domain),
            "n_phones": n_phones,
            "d": d,
            "heads": heads,
            "enc": enc,
            "dec": dec,
        }
        nd = len(domain)
        self.unused_id, self.ts0 = nd + len(CONTROL), nd + len(CONTROL) + 1  # compact ids
        self.compact = {t: i for i, t in enumerate(list(domain) + CONTROL)}
        self.n_unused = N_VOCAB - 1501 - nd - len(CONTROL)
        self.conv1, self.conv2 = (
            nn.Conv1d(n_mels, d, 3, padding=1),
            nn.Conv1d(d, d, 3, 2, padding=1),
        )
        self.register_buffer("pos", sinusoids(1501, d), persistent=False)
        self.enc = nn.ModuleList(Block(d, heads, False) for _ in range(enc))
        self.ln_post = nn.LayerNorm(d)
        self.dec = nn.ModuleList(Block(d, heads, True) for _ in range(dec))
        self.ln = nn.LayerNorm(d)
        self.tok = nn.Parameter(torch.randn(self.ts0, d) * 0.05)
        self.ts_w = nn.Parameter(torch.randn(d, d) * 0.01)
        self.ts_b = nn.Parameter(torch.zeros(d))
        self.tpos = nn.Parameter(torch.randn(n_text_ctx, d) * 0.01)
        self.phone = nn.Linear(d, n_phones)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, std=0.7 / math.sqrt(m.in_features))
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        for b in list(self.enc) + list(self.dec):
            for last in [b.attn.out, b.mlp[2]] + (
                [b.cross_attn.out] if hasattr(b, "cross_attn") else []
            ):
                last.weight.data *= 0.5

    def embedding(self):
        """Rows of the compact vocabulary, timestamps last."""
        return torch.cat([self.tok, self.pos @ self.ts_w + self.ts_b])

    def full_embedding(self):
        """Rows of the ordinary vocabulary, for the export."""
        full = self.tok[self.unused_id].detach().repeat(N_VOCAB, 1)
        for t, i in self.compact.items():
            full[t] = self.tok[i].detach()
        full[TS0:] = self.embedding()[self.ts0 :].detach()
        return full

    def encode(self, mel, pad=0, off=0):
        """Log-mel [B, 80, 2T] to [B, T, d]; `off` places the window inside a longer one."""
        x = gelu(self.conv2(gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.pos[off : off + x.shape[1]]
        for b in self.enc:
            x, _ = b(x, pad=pad)
        return self.ln_post(x)

    def decode(self, mem, toks, pad=0, want=False):
        """Logits over the compact vocabulary."""
        e = self.embedding()
        x = F.embedding(toks, e) + self.tpos[: toks.shape[1]]
        ws = []
        for b in self.dec:
            x, w = b(x, mem, causal=True, pad=pad, want=want)
            ws.append(w)
        return F.linear(self.ln(x), e).float(), ws

    def log_probs(self, logits):
        """Log probabilities; the shared row counts as often as tokens share it."""
        bias = torch.zeros(logits.shape[-1])
        bias[self.unused_id] = math.log(self.n_unused)
        return F.log_softmax(logits + bias, -1)
