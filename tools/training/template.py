"""The chat format of Qwen3.5, twice.

CHAT_TEMPLATE is the Jinja text for tokenizer_config.json. render() is an equal Python renderer that also
tells which parts of the text are the assistant's, for the loss. Both give the same text.
"""

import json

TOOLS_HEAD = "# Tools\n\nYou have access to the following functions:\n\n<tools>"
TOOLS_TAIL = """\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n
<tool_call>\n<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>
<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n</parameter>
</function>\n</tool_call>\n
<IMPORTANT>\nReminder:
- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within <tool_call></tool_call> XML tags
- Required parameters MUST be specified
- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT after
- If there is no function call available, answer the question like normal with your current knowledge and do not tell the user about function calls
</IMPORTANT>"""

CHAT_TEMPLATE = r"""{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- elif content is none or content is undefined -%}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content -%}
            {%- if part is string -%}{{- part -}}
            {%- elif 'text' in part -%}{{- part.text -}}
            {%- else -%}{{- raise_exception('Only text content is supported.') -}}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{- raise_exception('Unexpected content type.') -}}
    {%- endif -%}
{%- endmacro -%}
{%- if not messages -%}{{- raise_exception('No messages provided.') -}}{%- endif -%}
{%- set has_system = messages[0].role == 'system' -%}
{%- if tools and tools is iterable and tools is not mapping -%}
    {{- '<|im_start|>system\n' + TOOLS_HEAD -}}
    {%- for tool in tools -%}{{- '\n' + (tool | tojson) -}}{%- endfor -%}
    {{- TOOLS_TAIL -}}
    {%- if has_system -%}
        {%- set sys = text_of(messages[0].content) | trim -%}
        {%- if sys -%}{{- '\n\n' + sys -}}{%- endif -%}
    {%- endif -%}
    {{- '<|im_end|>\n' -}}
{%- elif has_system -%}
    {{- '<|im_start|>system\n' + (text_of(messages[0].content) | trim) + '<|im_end|>\n' -}}
{%- endif -%}
{#- the last real question: a user turn that is not a wrapped tool result -#}
{%- set last = namespace(query=-1) -%}
{%- for m in messages -%}
    {%- if m.role == 'user' -%}
        {%- set t = text_of(m.content) | trim -%}
        {%- if not (t.startswith('<tool_response>') and t.endswith('</tool_response>')) -%}
            {%- set last.query = loop.index0 -%}
        {%- endif -%}
    {%- endif -%}
{%- endfor -%}
{%- if last.query < 0 -%}{{- raise_exception('No user query found in messages.') -}}{%- endif -%}
{%- for m in messages -%}
    {%- set body = text_of(m.content) | trim -%}
    {%- if m.role == 'system' -%}
        {%- if not loop.first -%}{{- raise_exception('System message must be at the beginning.') -}}{%- endif -%}
    {%- elif m.role == 'user' -%}
        {{- '<|im_start|>user\n' + body + '<|im_end|>\n' -}}
    {%- elif m.role == 'assistant' -%}
        {%- set r = namespace(text='', body=body) -%}
        {%- if m.reasoning_content is string -%}
            {%- set r.text = m.reasoning_content -%}
        {%- elif '</think>' in body -%}
            {%- set r.text = body.split('</think>')[0].split('<think>')[-1] -%}
            {%- set r.body = body.split('</think>')[-1].lstrip('\n') -%}
        {%- endif -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- if loop.index0 > last.query -%}{{- '<think>\n' + (r.text | trim) + '\n</think>\n\n' -}}{%- endif -%}
        {{- r.body -}}
        {%- if m.tool_calls and m.tool_calls is iterable and m.tool_calls is not mapping -%}
            {%- for call in m.tool_calls -%}
                {%- set f = call.function if call.function is defined else call -%}
                {%- if not loop.first -%}{{- '\n' -}}{%- elif r.body | trim -%}{{- '\n\n' -}}{%- endif -%}
                {{- '<tool_call>\n<function=' + f.name + '>\n' -}}
                {%- if f.arguments is mapping -%}
                    {%- for key in f.arguments -%}
                        {%- set v = f.arguments[key] -%}
                        {{- '<parameter=' + key + '>\n' + (v if v is string else (v | tojson)) + '\n</parameter>\n' -}}
                    {%- endfor -%}
                {%- endif -%}
                {{- '</function>\n</tool_call>' -}}
            {%- endfor -%}
        {%- endif -%}
        {{- '<|im_end|>\n' -}}
    {%- elif m.role == 'tool' -%}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
        {{- '\n<tool_response>\n' + body + '\n</tool_response>' -}}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\n' -}}{%- endif -%}
    {%- else -%}
        {{- raise_exception('Unexpected message role.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}
        {{- '<think>\n\n</think>\n\n' -}}
    {%- else -%}
        {{- '<think>\n' -}}
    {%- endif -%}
{%- endif -%}
""".replace("TOOLS_HEAD", json.dumps(TOOLS_HEAD)).replace("TOOLS_TAIL", json.dumps(TOOLS_TAIL))


def json_text(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def call_text(name, arguments):
    """One tool call as the assistant writes it."""
    lines = [f"<parameter={key}>\n{json_text(v)}\n</parameter>\n" for key, v in arguments.items()]
    return f"<tool_call>\n<function={name}>\n" + "".join(lines) + "</function>\n</tool_call>"


class Pieces:
    """Text in pieces (text, is_assistant); neighbouring text of others becomes one piece."""

    def __init__(self):
        self.done = []
        self.open = []

    def add(self, text):
        self.open.append(text)

    def add_assistant(self, text):
        self.close()
        self.done.append((text, True))

    def close(self):
        if self.open:
            self.done.append(("".join(self.open), False))
            self.open = []
        return self.done


def render(messages, tools=None, add_generation_prompt=False, enable_thinking=True):
    """-> list of (text, is_assistant)"""
    pieces = Pieces()
    add_system(pieces, messages[0], tools)
    last_query = max(i for i, m in enumerate(messages) if m["role"] == "user")
    for i, message in enumerate(messages):
        if message["role"] == "user":
            pieces.add("<|im_start|>user\n" + message["content"].strip() + "<|im_end|>\n")
        elif message["role"] == "assistant":
            add_assistant(pieces, message, with_thought=i > last_query)
        elif message["role"] == "tool":
            is_last = i + 1 == len(messages) or messages[i + 1]["role"] != "tool"
            add_tool_result(pieces, message, messages[i - 1]["role"] != "tool", is_last)
    if add_generation_prompt:
        thought = "<think>\n" if enable_thinking else "<think>\n\n</think>\n\n"
        pieces.add("<|im_start|>assistant\n" + thought)
    return pieces.close()


def add_system(pieces, first, tools):
    system = first["content"].strip() if first["role"] == "system" else None
    if tools:
        listed = "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools)
        pieces.add("<|im_start|>system\n" + TOOLS_HEAD + listed + TOOLS_TAIL)
        pieces.add(("\n\n" + system if system else "") + "<|im_end|>\n")
    elif system is not None:
        pieces.add("<|im_start|>system\n" + system + "<|im_end|>\n")


def add_assistant(pieces, message, with_thought):
    """Thoughts before the last question are left out."""
    pieces.add("<|im_start|>assistant\n")
    body = (message.get("content") or "").strip()
    thought = (message.get("reasoning_content") or "").strip()
    calls = "\n".join(call_text(c["name"], c["arguments"]) for c in message.get("tool_calls", []))
    text = body + ("\n\n" if body and calls else "") + calls + "<|im_end|>"
    if with_thought and thought:
        pieces.add("<think>\n")
        text = thought + "\n</think>\n\n" + text
    elif with_thought:
        pieces.add("<think>\n\n</think>\n\n")
    pieces.add_assistant(text)
    pieces.add("\n")


def add_tool_result(pieces, message, is_first, is_last):
    """Results in a row share one turn of the user."""
    if is_first:
        pieces.add("<|im_start|>user")
    pieces.add("\n<tool_response>\n" + message["content"].strip() + "\n</tool_response>")
    if is_last:
        pieces.add("<|im_end|>\n")
