"""The inputs of golden.py: texts, conversations, and configurations for random checkpoints."""

PLAIN_PROMPT = (
    "The harbor was quiet in the early morning. "
    "A small boat came in slowly, and the old man on the pier"
)
CHAT_PROMPT = [{"role": "user", "content": "What is the capital of Portugal?"}]

# Strings that tokenizers get wrong: white space, digits of other scripts, joined emoji, control
# characters, added tokens inside text.
TOKENIZER_CASES = [
    "Hello, world!",
    "  leading and   inner   spaces  ",
    "12345 67.89 1,000,000 \xbd \xb2 \u0663",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u043a\u0438\u0440\u0438\u043b\u043b\u0438\u0446\u0430 \u05e2\u05d1\u05e8\u05d9\u05ea \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea emoji",
    "<think>\n\n</think>\n\nAnswer",
    "x<|im_end|>y<|endoftext|>z",
    "def f(x):\n    return x**2  # square\n\n\tif a != b: pass",
    "https://example.org/a?b=c&d=%20#frag",
    "MiXeD CaSe wOrDs ABCdef",
    "a",
    " ",
    "\ufffd \x00 \x7f \x85",
    "na\xefve caf\xe9 Z\xfcrich \xd8resund \u0142\xf3d\u017a",
    "\u4e00\u4e8c\u4e09abc123",
]

# What the evaluation items do not have: a system text with spaces, old reasoning, content in parts.
EXTRA_CHATS = [
    {
        "messages": [
            {"role": "system", "content": "  Be brief. "},
            {"role": "user", "content": " Hi "},
            {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello!"},
            {"role": "user", "content": "Bye"},
        ],
        "add_generation_prompt": True,
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "part one, "},
                    {"type": "text", "text": "part two"},
                ],
            }
        ],
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
]


# name, dtype of the file, layout ("text": flat config, one file; "wrapped": as the published
# checkpoints with vision and MTP tensors beside), tokens of the prompt, fields of the config.
# "rotary" is the partial_rotary_factor.
RANDOM_CHECKPOINTS = [
    (
        "r0-gva2",
        "BF16",
        "text",
        70,
        dict(
            vocab_size=257,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            num_experts=8,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
            tie_word_embeddings=False,
            linear_conv_kernel_dim=4,
            rotary=0.25,
        ),
    ),
    (
        "r1-tied",
        "F32",
        "text",
        130,
        dict(
            vocab_size=301,
            hidden_size=96,
            num_hidden_layers=3,
            layer_types=["linear_attention", "full_attention", "linear_attention"],
            num_attention_heads=6,
            num_key_value_heads=1,
            head_dim=32,
            linear_num_key_heads=4,
            linear_num_value_heads=4,
            linear_key_head_dim=32,
            linear_value_head_dim=16,
            num_experts=12,
            num_experts_per_tok=4,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=48,
            tie_word_embeddings=True,
            linear_conv_kernel_dim=2,
            rotary=0.5,
        ),
    ),
    (
        "r2-top1",
        "BF16",
        "text",
        33,
        dict(
            vocab_size=521,
            hidden_size=128,
            num_hidden_layers=5,
            layer_types=[
                "full_attention",
                "linear_attention",
                "full_attention",
                "linear_attention",
                "linear_attention",
            ],
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            attention_bias=True,
            linear_num_key_heads=1,
            linear_num_value_heads=4,
            linear_key_head_dim=24,
            linear_value_head_dim=32,
            num_experts=4,
            num_experts_per_tok=1,
            moe_intermediate_size=64,
            shared_expert_intermediate_size=16,
            tie_word_embeddings=False,
            linear_conv_kernel_dim=3,
            rotary=1.0,
            rope_theta=10000.0,
        ),
    ),
    (
        "r3-wrapped",
        "BF16",
        "wrapped",
        65,
        dict(
            vocab_size=515,
            hidden_size=64,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            linear_num_key_heads=2,
            linear_num_value_heads=6,
            linear_key_head_dim=32,
            linear_value_head_dim=32,
            num_experts=32,
            num_experts_per_tok=8,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=64,
            tie_word_embeddings=False,
            linear_conv_kernel_dim=4,
            rotary=0.25,
        ),
    ),
]
