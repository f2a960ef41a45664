"""What transformers makes of conversations by chat templates: stages/shared/template/tests/goldens.json.

    pip install 'transformers==5.23.0' 'jinja2==3.1.6'
    python scripts/make_template_goldens.py
    python scripts/make_template_goldens.py --templates FOLDER --out FILE    # templates of others, with their sources inside
    python scripts/make_template_goldens.py --data FOLDER                    # ids: stages/shared/tokenizer/tests/chat_ids.json

The templates are ours, after the documented format of each family: stages/shared/template/tests/templates. Those of others are
not committed: `pip download trl` has some sixty in `trl/chat_templates`, and PIPE_TEMPLATE_GOLDENS=FILE names what this script
made of them to `cargo test -p pipe-template`.

With `--data`, the folder of PIPE_TEST_DATA, conversations become ids by `apply_chat_template(tokenize=True)` with the tokenizers in it.

Texts are rendered by transformers itself (`render_jinja_template`), with the date fixed, and messages prepared as
`apply_chat_template` prepares them. Needs no network and no model.
"""

import argparse
import datetime
import json
import re
from pathlib import Path

from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent.parent / "stages" / "shared" / "template" / "tests"


class FixedDate(datetime.datetime):
    """What `strftime_now` formats."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = FixedDate

# Special tokens of each family, as variables of its template.
TOKENS = {
    "llama2": ("<s>", "</s>"),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "phi3": ("<s>", "<|endoftext|>"),
    "gemma2": ("<bos>", "<eos>"),
    "gemma3": ("<bos>", "<eos>"),
    "zephyr": ("<s>", "</s>"),
    "deepseek": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "command_r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def call(name, arguments, call_id):
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a place, in °C — \"now\".",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where"},
                "days": {"type": "integer", "minimum": 1, "default": 3},
                "scale": {"type": "number", "enum": [0.5, 1.0, 1e-05, 1e16, -2]},
                "exact": {"type": "boolean", "default": False},
            },
            "required": ["place"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}

CONVERSATIONS = {
    "question": {"messages": [user("Hi there")]},
    "turns": {"messages": [user("Hi"), assistant("Hello!"), user("  2 + 2?\n"), assistant("\n4 \n")]},
    "system": {"messages": [{"role": "system", "content": "Be brief. "}, user("Who?"), assistant("Me.")]},
    "unicode": {"messages": [user("Ünïcödé 你好 😀 \u200b\u00a0"), assistant("🇨🇭 «ß»\t…")]},
    "empty": {"messages": [user(""), assistant("")]},
    "special": {"messages": [user("say <|im_end|> and </s> or [/INST]<|eot_id|>"), assistant("<|im_start|>user\n<end_of_turn> <")]},
    "lines": {"messages": [user("a\n\n  b\r\n{{ x }} {% y %} {# z #}"), assistant("```py\nif a < b and c > d: print('\"')\n```\n")]},
    "twice": {"messages": [user("one"), user("two"), assistant("three")]},
    "assistant_first": {"messages": [assistant("I begin."), user("Do you?")]},
    "system_late": {"messages": [user("a"), assistant("b"), {"role": "system", "content": "c"}, user("d")]},
    "unknown_role": {"messages": [{"role": "critic", "content": "a"}, user("b")]},
    "none": {"messages": [user("a"), {"role": "assistant", "content": None, "tool_calls": None}]},
    "parts": {"messages": [user([{"type": "text", "text": " a "}, {"type": "text", "text": "b"}]), assistant("c")]},
    "thinking": {
        "messages": [
            user("1 + 1?"),
            assistant("<think>\nOne and one.\n</think>\n\n2"),
            user("And 3?"),
            assistant("<think>\nTwo and three.\n</think>\n\n5"),
        ]
    },
    "reasoning": {"messages": [user("1 + 1?"), assistant("2", reasoning_content="\nOne and one.\n"), user("?"), assistant("!", reasoning="No.")]},
    "tools": {
        "messages": [
            {"role": "system", "content": "Use tools."},
            user("Weather in Zürich and the time?"),
            assistant("", tool_calls=[call("get_weather", {"place": "Zürich \"HB\"", "days": 2, "scale": 1.0, "exact": True, "more": [None, {"a": []}]}, "abcdefgh1")]),
            {"role": "tool", "name": "get_weather", "content": "{\"t\": 21.5}", "tool_call_id": "abcdefgh1"},
            assistant("21.5 °C"),
        ],
        "tools": [WEATHER, CLOCK],
    },
    "two_calls": {
        "messages": [
            user("Both?"),
            assistant("Let me see.", tool_calls=[call("clock", {}, "abcdefgh1"), call("get_weather", {"place": "x"}, "abcdefgh2")]),
            {"role": "tool", "name": "clock", "content": "12:00", "tool_call_id": "abcdefgh1"},
            {"role": "tool", "name": "get_weather", "content": "rain", "tool_call_id": "abcdefgh2"},
            assistant("Noon, rain."),
            user("Thanks"),
        ],
        "tools": [CLOCK],
    },
    "bad_id": {"messages": [user("a"), assistant("", tool_calls=[call("clock", {}, "1")])], "tools": [CLOCK]},
    "documents": {
        "messages": [user("What do they say?"), assistant("Nothing.")],
        "documents": [{"title": "A b", "text": "first"}, {"text": "second\nline", "title": "É"}],
    },
}

KWARGS = {"qwen3": [{"enable_thinking": False}], "llama3": [{"date_string": "1 Jan 2025"}], "command_r": [{"use_default_system_prompt": True}]}

# Each is one template and its variables: what Jinja2 and Python do with values.
DATA = {
    "s": "  Héllo wörld\x1f", "n": 7, "f": 0.1, "big": 1e22, "tiny": 1.5e-07, "whole": 3.0, "t": True, "no": None, "list": [3, 1, 2, "x", None],
    "d": {"b": 1, "a": [1.5, "q'uote\"", True, None], "é": "\n\t\\"}, "items": [{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "a"}],
    "text": "one,two,,three", "lines": "a\r\nb\x0bc\n\nd\n", "empty": "", "code": "<a href=\"x\">&'</a>",
}
EXPRESSIONS = [
    "{{ s }}|{{ n }}|{{ f }}|{{ big }}|{{ tiny }}|{{ whole }}|{{ t }}|{{ no }}|{{ missing }}|",
    "{{ list }}|{{ d }}|{{ items[0] }}|{{ [] }}|{{ {} }}|{{ (1, 2) }}|{{ ('a',) }}",
    "{{ s ~ n ~ t ~ no ~ missing }}|{{ 'a' + 'b' }}|{{ list ~ '' }}|{{ d ~ '' }}",
    "{{ d | tojson }}|{{ list | tojson }}|{{ s | tojson }}|{{ big | tojson }}|{{ whole | tojson }}|{{ code | tojson }}|{{ no | tojson }}",
    "{{ d | tojson(indent=2) }}|{{ [] | tojson(indent=2) }}|{{ [[], {}, [1]] | tojson(indent=4) }}",
    "{{ d | tojson(ensure_ascii=True) }}|{{ d | tojson(sort_keys=True) }}|{{ d | tojson(separators=(',', ':')) }}|{{ '😀\x7f\u2028' | tojson(ensure_ascii=true) }}",
    "{{ s.strip() }}|{{ s.upper() }}|{{ s.title() }}|{{ s | trim }}|{{ s.lstrip() }}|{{ s.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ missing | trim }}|{{ no | trim }}",
    "{{ text.split(',') }}|{{ text.split(',', 1) }}|{{ ' a  b '.split() }}|{{ text.rsplit(',', 1) }}|{{ text.partition(',') }}|{{ text.split(',')[-1] }}",
    "{{ lines.splitlines() }}|{{ text.replace(',', ';') }}|{{ text.replace(',', ';', 1) }}|{{ text | replace(',', '') }}|{{ text.find('two') }}|{{ text.find('no') }}|{{ text.count(',') }}",
    "{{ text.startswith('one') }}|{{ text.endswith(('x', 'three')) }}|{{ 'two' in text }}|{{ 'k' in items[0] }}|{{ 3 in list }}|{{ 'z' not in text }}",
    "{{ 'abc'.removeprefix('a') }}|{{ 'abc'.removesuffix('bc') }}|{{ 'a{}b{}'.format(1, 'x') }}|{{ '-'.join(['a', 'b']) }}|{{ 'aB1'.isalnum() }}|{{ '12'.isdigit() }}",
    "{{ list[1:] }}|{{ list[::-1] }}|{{ list[:-1] }}|{{ s[2:5] }}|{{ s[-3:] }}|{{ 'abc'[::-1] }}|{{ list[9] }}|{{ list[-1] }}|{{ list[-2] }}",
    "{{ list | length }}|{{ s | length }}|{{ d | length }}|{{ items | map(attribute='k') | list }}|{{ items | map(attribute='k') | join('+') }}|{{ ['b','A'] | map('upper') | list }}",
    "{{ items | selectattr('k', 'equalto', 'a') | list | length }}|{{ items | rejectattr('k', 'equalto', 'a') | list }}|{{ items | selectattr('v', 'defined') | list | length }}|{{ [0, 1, '', 'x'] | select | list }}",
    "{{ d.items() | list }}|{{ d.keys() | list }}|{{ d.get('zz') }}|{{ d.get('zz', 4) }}|{{ d | dictsort }}|{{ d | items | list | length }}",
    "{% for k, v in d.items() %}{{ loop.index }}{{ k }}={{ v }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for x in list %}{% if x == 2 %}{% break %}{% endif %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in list if x is number %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% set ns = namespace(a=1, b='x') %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% set inner = 1 %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ inner is defined }}",
    "{% macro m(a, b=2) %}[{{ a }}{{ b }}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{% call m(4) %}body{% endcall %}",
    "{% set x %}  block {{ n }} {% endset %}<{{ x }}>{{ x | trim }}{% filter upper %}up{% endfilter %}{% with y = 3 %}{{ y }}{% endwith %}",
    "{{ s is string }}{{ n is number }}{{ t is number }}{{ f is float }}{{ n is integer }}{{ t is integer }}{{ d is mapping }}{{ list is mapping }}{{ no is none }}{{ missing is defined }}{{ t is boolean }}{{ t is true }}{{ n is even }}{{ n is odd }}",
    "{{ s is sequence }}{{ d is sequence }}{{ list is sequence }}{{ n is sequence }}{{ s is iterable }}{{ no is iterable }}{{ d is iterable }}{{ n is iterable }}{{ missing is iterable }}{{ missing is sequence }}",
    "{{ n // 2 }}|{{ n / 2 }}|{{ n % 4 }}|{{ 2 ** 3 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ n / 7 }}|{{ 1 + whole }}|{{ n * 'ab' }}|{{ [1] * 2 }}|{{ 10 / 4 }}",
    "{{ 1 < 2 < 3 }}|{{ 'a' < 'b' }}|{{ n == 7.0 }}|{{ t == 1 }}|{{ no == none }}|{{ not empty }}|{{ empty or 'else' }}|{{ s and n }}|{{ no or missing or 'x' }}|{{ [] == [] }}",
    "{{ 'y' if t else 'n' }}|{{ 'y' if missing }}|{{ missing | default('d') }}|{{ empty | default('d') }}|{{ empty | default('d', true) }}|{{ no | default('d') }}|{{ no | default('d', true) }}",
    "{{ 3.7 | int }}|{{ '12' | int }}|{{ 'x' | int(5) }}|{{ '1.5' | float }}|{{ 3.14159 | round(2) }}|{{ n | string + 'x' }}|{{ f | string }}|{{ -3 | abs }}|{{ [1, 2] | sum }}|{{ [3, 1] | sort }}|{{ [3, 1] | max }}",
    "{{ 'a b' | capitalize }}|{{ 'a b' | title }}|{{ 'AB' | lower }}|{{ [1, 2, 3] | first }}|{{ [1, 2, 3] | last }}|{{ [1, 1, 2] | unique | list }}|{{ 'abc' | reverse }}|{{ [1, 2, 3] | reverse | list }}|{{ [1,2,3] | batch(2) | list }}",
    "{{ 'a\\nb' | indent(2) }}|{{ 'a\\n\\nb' | indent(2, true) }}|{{ '%s-%d' | format('x', 3) }}|{{ code | e }}|{{ code | safe }}|{{ code }}",
    "  {% if t %}\n  line\n  {% endif %}\n  {#- c -#}  \n{%- if t +%}\n x{% endif %}\n\nend\n",
    "{% raw %}{{ x }} {% y %}{% endraw %}{{ '{{' }}{{ \"it's\" }}{{ 'a\\tb\\\\' }}{{ 'a' 'b' }}",
    "{% generation %}{{ n }}{% set z = 1 %}{% endgeneration %}{{ z is defined }}{%- generation %} {{ n }}{% endgeneration %}",
    "{{ raise_exception('no ' ~ n) }}",
    "{{ missing.attribute }}",
    "{{ strftime_now('%d %B %Y, %A') }}",
    "{{ messages[0]['content'] if messages else 'nobody' }}{{ dict(a=1)['a'] }}",
]


def prepare(conversation):
    """As apply_chat_template does before it renders."""
    messages = [{k: v for k, v in message.items() if v is not None} for message in conversation["messages"]]
    return {**conversation, "messages": messages}


def render(source, conversation, add_generation_prompt, variables):
    """The text with its generation blocks, or the error."""
    arguments = {"tools": conversation.get("tools"), "documents": conversation.get("documents"), "chat_template": source}
    has_blocks = re.search(r"\{%-?\s*generation\s*-?%\}", source) is not None
    try:
        texts, blocks = chat_template_utils.render_jinja_template(
            conversations=[conversation["messages"]], return_assistant_tokens_mask=has_blocks,
            add_generation_prompt=add_generation_prompt, **arguments, **variables)
    except Exception as error:
        is_raised = type(error).__name__ == "TemplateError"
        return {"error": str(error) if is_raised else None}
    # Positions in UTF-16 or bytes would differ; these are characters.
    return {"text": texts[0], **({"generation": blocks[0]} if has_blocks else {})}


def cases(templates):
    for name, source in templates.items():
        family = next((family for family in TOKENS if name.startswith(family)), None)
        bos, eos = TOKENS.get(family, ("<s>", "</s>"))
        tokens = {"bos_token": bos, "eos_token": eos}
        for key, conversation in CONVERSATIONS.items():
            for add_generation_prompt in (False, True):
                # Half of them are enough where the last message is the assistant's.
                if add_generation_prompt and conversation["messages"][-1]["role"] == "assistant" and key not in ("turns", "tools"):
                    continue
                for kwargs in [{}, *(KWARGS.get(name, []) if key in ("question", "turns") else [])]:
                    case = {"template": name, "conversation": key, "add_generation_prompt": add_generation_prompt, "variables": {**tokens, **kwargs}}
                    yield {**case, **render(source, prepare(conversation), add_generation_prompt, case["variables"])}


def expressions():
    for source in EXPRESSIONS:
        conversation = {"messages": [user("x")]}
        yield {"source": source, **render(source, conversation, False, DATA)}


# Tokenizers below PIPE_TEST_DATA, each with a template of ours whose special tokens it has.
TOKENIZERS = {"tokenizers/llama2": "llama2", "models/stories260K": "zephyr", "tokenizers/gpt2": "zephyr", "tokenizers/xgen": "zephyr"}


def chat_ids(data):
    from transformers import PreTrainedTokenizerFast

    for folder, template in TOKENIZERS.items():
        path = data / folder
        config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        names = {name: config[name] for name in ("bos_token", "eos_token") if config.get(name)}
        names = {name: token if isinstance(token, str) else token["content"] for name, token in names.items()}
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "tokenizer.json"), **names)
        source = (HERE / "templates" / f"{template}.jinja").read_text(encoding="utf-8")
        for key, conversation in CONVERSATIONS.items():
            if key in ("special", "none", "parts"):  # Texts of special tokens are not the template's there.
                continue
            try:
                text = tokenizer.apply_chat_template(conversation["messages"], chat_template=source, tokenize=False)
                ids = tokenizer.apply_chat_template(conversation["messages"], chat_template=source, return_dict=False)
            except Exception:  # What a template refuses is in the other file.
                continue
            yield {"tokenizer": folder, "conversation": key, "text": text, "ids": ids}


def write_chat_ids(data):
    out = HERE.parent.parent / "tokenizer" / "tests" / "chat_ids.json"
    items = ",\n".join(json.dumps(item, ensure_ascii=False) for item in chat_ids(data))
    out.write_text(f"[\n{items}\n]\n", encoding="utf-8")
    print(f"{out}: {items.count(chr(10)) + 1} texts")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=Path, default=HERE / "templates")
    parser.add_argument("--out", type=Path, default=HERE / "goldens.json")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    if arguments.data:
        write_chat_ids(arguments.data)
        return
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(arguments.templates.glob("*.jinja"))}
    is_ours = arguments.templates == HERE / "templates"
    goldens = {
        "format_version": 1,
        "templates": {} if is_ours else templates,
        "conversations": CONVERSATIONS,
        "data": DATA,
        "expressions": list(expressions()),
        "cases": list(cases(templates)),
    }
    # A line per case: a change can be read.
    lines = [f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in goldens.items() if key not in ("cases", "expressions")]
    for key in ("expressions", "cases"):
        items = ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in goldens[key])
        lines.append(f'"{key}": [\n  {items}\n]')
    arguments.out.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{arguments.out}: {len(goldens['cases'])} cases, {len(goldens['expressions'])} expressions, {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
