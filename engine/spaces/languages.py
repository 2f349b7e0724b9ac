"""The languages of SONAR: the 202 FLORES-200 codes of NLLB, in the order of their tokens.

Codes and their order are those of SONAR's asset cards (facebookresearch/SONAR, sonar/cards/text_sonar_basic_*.yaml);
English names follow the FLORES-200 language list (facebookresearch/flores). The second column is the tag that browsers
and other programs know a language by (BCP 47).
"""

from __future__ import annotations

from . import Language

# code, tag, English, own
TABLE = """
ace_Arab|ace-Arab|Acehnese (Arabic script)|بهسا اچيه
ace_Latn|ace|Acehnese|Bahsa Acèh
acm_Arab|acm|Mesopotamian Arabic|عراقي
acq_Arab|acq|Ta’izzi-Adeni Arabic|تعزية عدنية
aeb_Arab|aeb|Tunisian Arabic|تونسي
afr_Latn|af|Afrikaans|Afrikaans
ajp_Arab|ajp|South Levantine Arabic|شامي جنوبي
aka_Latn|ak|Akan|Akan
amh_Ethi|am|Amharic|አማርኛ
apc_Arab|apc|North Levantine Arabic|شامي شمالي
arb_Arab|ar|Modern Standard Arabic|العربية
ars_Arab|ars|Najdi Arabic|نجدي
ary_Arab|ary|Moroccan Arabic|الدارجة
arz_Arab|arz|Egyptian Arabic|مصري
asm_Beng|as|Assamese|অসমীয়া
ast_Latn|ast|Asturian|asturianu
awa_Deva|awa|Awadhi|अवधी
ayr_Latn|ay|Central Aymara|Aymar aru
azb_Arab|azb|South Azerbaijani|تۆرکجه
azj_Latn|az|North Azerbaijani|azərbaycanca
bak_Cyrl|ba|Bashkir|башҡортса
bam_Latn|bm|Bambara|bamanankan
ban_Latn|ban|Balinese|Basa Bali
bel_Cyrl|be|Belarusian|беларуская
bem_Latn|bem|Bemba|Ichibemba
ben_Beng|bn|Bengali|বাংলা
bho_Deva|bho|Bhojpuri|भोजपुरी
bjn_Arab|bjn-Arab|Banjar (Arabic script)|بهاس بنجر
bjn_Latn|bjn|Banjar|Bahasa Banjar
bod_Tibt|bo|Standard Tibetan|བོད་སྐད་
bos_Latn|bs|Bosnian|bosanski
bug_Latn|bug|Buginese|Basa Ugi
bul_Cyrl|bg|Bulgarian|български
cat_Latn|ca|Catalan|català
ceb_Latn|ceb|Cebuano|Cebuano
ces_Latn|cs|Czech|čeština
cjk_Latn|cjk|Chokwe|Chokwe
ckb_Arab|ckb|Central Kurdish|کوردیی ناوەندی
crh_Latn|crh|Crimean Tatar|qırımtatarca
cym_Latn|cy|Welsh|Cymraeg
dan_Latn|da|Danish|dansk
deu_Latn|de|German|Deutsch
dik_Latn|din|Southwestern Dinka|Thuɔŋjäŋ
dyu_Latn|dyu|Dyula|Julakan
dzo_Tibt|dz|Dzongkha|རྫོང་ཁ
ell_Grek|el|Greek|Ελληνικά
eng_Latn|en|English|English
epo_Latn|eo|Esperanto|Esperanto
est_Latn|et|Estonian|eesti
eus_Latn|eu|Basque|euskara
ewe_Latn|ee|Ewe|Eʋegbe
fao_Latn|fo|Faroese|føroyskt
pes_Arab|fa|Western Persian|فارسی
fij_Latn|fj|Fijian|Na Vosa Vakaviti
fin_Latn|fi|Finnish|suomi
fon_Latn|fon|Fon|fɔ̀ngbè
fra_Latn|fr|French|français
fur_Latn|fur|Friulian|furlan
fuv_Latn|fuv|Nigerian Fulfulde|Fulfulde
gla_Latn|gd|Scottish Gaelic|Gàidhlig
gle_Latn|ga|Irish|Gaeilge
glg_Latn|gl|Galician|galego
grn_Latn|gn|Guarani|Avañe’ẽ
guj_Gujr|gu|Gujarati|ગુજરાતી
hat_Latn|ht|Haitian Creole|Kreyòl ayisyen
hau_Latn|ha|Hausa|Hausa
heb_Hebr|he|Hebrew|עברית
hin_Deva|hi|Hindi|हिन्दी
hne_Deva|hne|Chhattisgarhi|छत्तीसगढ़ी
hrv_Latn|hr|Croatian|hrvatski
hun_Latn|hu|Hungarian|magyar
hye_Armn|hy|Armenian|հայերեն
ibo_Latn|ig|Igbo|Igbo
ilo_Latn|ilo|Ilocano|Ilokano
ind_Latn|id|Indonesian|Bahasa Indonesia
isl_Latn|is|Icelandic|íslenska
ita_Latn|it|Italian|italiano
jav_Latn|jv|Javanese|Basa Jawa
jpn_Jpan|ja|Japanese|日本語
kab_Latn|kab|Kabyle|Taqbaylit
kac_Latn|kac|Jingpho|Jinghpaw
kam_Latn|kam|Kamba|Kikamba
kan_Knda|kn|Kannada|ಕನ್ನಡ
kas_Arab|ks|Kashmiri (Arabic script)|کٲشُر
kas_Deva|ks-Deva|Kashmiri (Devanagari script)|कॉशुर
kat_Geor|ka|Georgian|ქართული
knc_Arab|knc-Arab|Central Kanuri (Arabic script)|كنوري
knc_Latn|knc|Central Kanuri|Kanuri
kaz_Cyrl|kk|Kazakh|қазақ тілі
kbp_Latn|kbp|Kabiyè|Kabɩyɛ
kea_Latn|kea|Kabuverdianu|kabuverdianu
khm_Khmr|km|Khmer|ខ្មែរ
kik_Latn|ki|Kikuyu|Gikuyu
kin_Latn|rw|Kinyarwanda|Ikinyarwanda
kir_Cyrl|ky|Kyrgyz|кыргызча
kmb_Latn|kmb|Kimbundu|Kimbundu
kon_Latn|kg|Kikongo|Kikongo
kor_Hang|ko|Korean|한국어
kmr_Latn|ku|Northern Kurdish|Kurmancî
lao_Laoo|lo|Lao|ລາວ
lvs_Latn|lv|Standard Latvian|latviešu
lij_Latn|lij|Ligurian|ligure
lim_Latn|li|Limburgish|Limburgs
lin_Latn|ln|Lingala|lingála
lit_Latn|lt|Lithuanian|lietuvių
lmo_Latn|lmo|Lombard|lombard
ltg_Latn|ltg|Latgalian|latgalīšu
ltz_Latn|lb|Luxembourgish|Lëtzebuergesch
lua_Latn|lua|Luba-Kasai|Tshiluba
lug_Latn|lg|Ganda|Luganda
luo_Latn|luo|Luo|Dholuo
lus_Latn|lus|Mizo|Mizo ṭawng
mag_Deva|mag|Magahi|मगही
mai_Deva|mai|Maithili|मैथिली
mal_Mlym|ml|Malayalam|മലയാളം
mar_Deva|mr|Marathi|मराठी
min_Latn|min|Minangkabau|Minangkabau
mkd_Cyrl|mk|Macedonian|македонски
plt_Latn|mg|Plateau Malagasy|Malagasy
mlt_Latn|mt|Maltese|Malti
mni_Beng|mni|Meitei (Bengali script)|মৈতৈলোন্
khk_Cyrl|mn|Halh Mongolian|монгол
mos_Latn|mos|Mossi|Mooré
mri_Latn|mi|Maori|Te Reo Māori
zsm_Latn|ms|Standard Malay|Bahasa Melayu
mya_Mymr|my|Burmese|မြန်မာ
nld_Latn|nl|Dutch|Nederlands
nno_Latn|nn|Norwegian Nynorsk|nynorsk
nob_Latn|nb|Norwegian Bokmål|bokmål
npi_Deva|ne|Nepali|नेपाली
nso_Latn|nso|Northern Sotho|Sesotho sa Leboa
nus_Latn|nus|Nuer|Thok Nath
nya_Latn|ny|Nyanja|Chinyanja
oci_Latn|oc|Occitan|occitan
gaz_Latn|om|West Central Oromo|Afaan Oromoo
ory_Orya|or|Odia|ଓଡ଼ିଆ
pag_Latn|pag|Pangasinan|Pangasinan
pan_Guru|pa|Eastern Panjabi|ਪੰਜਾਬੀ
pap_Latn|pap|Papiamento|Papiamentu
pol_Latn|pl|Polish|polski
por_Latn|pt|Portuguese|português
prs_Arab|prs|Dari|دری
pbt_Arab|ps|Southern Pashto|پښتو
quy_Latn|qu|Ayacucho Quechua|Runasimi
ron_Latn|ro|Romanian|română
run_Latn|rn|Rundi|Ikirundi
rus_Cyrl|ru|Russian|русский
sag_Latn|sg|Sango|Sängö
san_Deva|sa|Sanskrit|संस्कृतम्
sat_Beng|sat|Santali|ᱥᱟᱱᱛᱟᱲᱤ
scn_Latn|scn|Sicilian|sicilianu
shn_Mymr|shn|Shan|တႆး
sin_Sinh|si|Sinhala|සිංහල
slk_Latn|sk|Slovak|slovenčina
slv_Latn|sl|Slovenian|slovenščina
smo_Latn|sm|Samoan|Gagana Samoa
sna_Latn|sn|Shona|chiShona
snd_Arab|sd|Sindhi|سنڌي
som_Latn|so|Somali|Soomaali
sot_Latn|st|Southern Sotho|Sesotho
spa_Latn|es|Spanish|español
als_Latn|sq|Tosk Albanian|shqip
srd_Latn|sc|Sardinian|sardu
srp_Cyrl|sr|Serbian|српски
ssw_Latn|ss|Swati|siSwati
sun_Latn|su|Sundanese|Basa Sunda
swe_Latn|sv|Swedish|svenska
swh_Latn|sw|Swahili|Kiswahili
szl_Latn|szl|Silesian|ślōnski
tam_Taml|ta|Tamil|தமிழ்
tat_Cyrl|tt|Tatar|татар
tel_Telu|te|Telugu|తెలుగు
tgk_Cyrl|tg|Tajik|тоҷикӣ
tgl_Latn|tl|Tagalog|Tagalog
tha_Thai|th|Thai|ไทย
tir_Ethi|ti|Tigrinya|ትግርኛ
taq_Latn|taq|Tamasheq|Tamašeq
taq_Tfng|taq-Tfng|Tamasheq (Tifinagh script)|ⵜⴰⵎⴰⵌⴰⵆ
tpi_Latn|tpi|Tok Pisin|Tok Pisin
tsn_Latn|tn|Tswana|Setswana
tso_Latn|ts|Tsonga|Xitsonga
tuk_Latn|tk|Turkmen|türkmen dili
tum_Latn|tum|Tumbuka|chiTumbuka
tur_Latn|tr|Turkish|Türkçe
twi_Latn|tw|Twi|Twi
tzm_Tfng|tzm-Tfng|Central Atlas Tamazight|ⵜⴰⵎⴰⵣⵉⵖⵜ
uig_Arab|ug|Uyghur|ئۇيغۇرچە
ukr_Cyrl|uk|Ukrainian|українська
umb_Latn|umb|Umbundu|Umbundu
urd_Arab|ur|Urdu|اردو
uzn_Latn|uz|Northern Uzbek|oʻzbekcha
vec_Latn|vec|Venetian|vèneto
vie_Latn|vi|Vietnamese|Tiếng Việt
war_Latn|war|Waray|Winaray
wol_Latn|wo|Wolof|Wolof
xho_Latn|xh|Xhosa|isiXhosa
ydd_Hebr|yi|Eastern Yiddish|ייִדיש
yor_Latn|yo|Yoruba|Yorùbá
yue_Hant|yue|Yue Chinese|粵語
zho_Hans|zh-Hans|Chinese (simplified)|简体中文
zho_Hant|zh-Hant|Chinese (traditional)|繁體中文
zul_Latn|zu|Zulu|isiZulu
"""

LANGUAGES = {
    code: Language(code, english, own, tag)
    for code, tag, english, own in (row.split("|") for row in TABLE.strip().splitlines())
}
